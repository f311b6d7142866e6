"""The product of experts: which weights are found."""

from __future__ import annotations

import torch

from afresh.domains.interactions.blend import Choices, blended


def test_the_expert_who_knows_what_is_chosen_gets_the_weight_and_probabilities_are_right() -> None:
    """Choices are drawn from the distribution of one of three experts, which the blend of all is."""
    torch.manual_seed(0)
    users, size = 3_000, 30
    wise = torch.randn(users, size).mul(1.5).log_softmax(1)
    experts = {"wise": wise, "noise": torch.randn(users, size), "constant": torch.zeros(1, size)}
    targets = torch.multinomial(wise.exp(), 1)[:, 0].tolist()
    choices = Choices(size)
    choices.add(experts, targets, [[]] * users)
    weights = choices.weights()
    assert abs(weights["noise"]) < 0.1 < 0.85 < weights["wise"] < 1.15
    p = blended(experts, weights).softmax(1)
    assert (p - wise.exp()).abs().mean() < 0.005


def test_random_items_stand_for_all_that_no_expert_names() -> None:
    """With more items than are compared, the weights are close to those from all items."""
    torch.manual_seed(0)
    users, size = 1_500, 2_000
    known = torch.randn(users, size).mul(2.0).log_softmax(1)
    targets = torch.multinomial(known.exp(), 1)[:, 0].tolist()
    choices = Choices(size)
    choices.add({"known": known}, targets, [[]] * users)
    assert choices.says[0].shape[1] < 400
    assert 0.9 < choices.weights()["known"] < 1.1


def test_items_that_are_not_recommended_are_no_rivals() -> None:
    choices = Choices(4)
    choices.add({"a": torch.tensor([[3.0, 2.0, 1.0, 0.0]])}, [2], [[0, 1]])
    assert choices.says[0].tolist() == [[1.0, 3.0, 2.0, 0.0]]
    assert choices.rivals[0].tolist() == [False, False, False, True]
