"""Advantages worked by hand, and what they promise: no signal from equal rewards, nothing from what is masked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afresh.core import UserError
from afresh.engine.alignment.methods import advantages as adv


def close(a: Tensor, b: list[float] | list[list[float]]) -> None:
    torch.testing.assert_close(a.double(), torch.tensor(b, dtype=torch.float64), rtol=0, atol=1e-6)


# --------------------------------------------------------------------------- generalised advantage estimation


def test_gae_by_hand() -> None:
    """gamma 0.5, lam 0.5; r = 1, 2, 4; V = 2, 4, 8.

    d = (1 + 2 - 2, 2 + 4 - 4, 4 - 8) = (1, 2, -4); A_3 = -4, A_2 = 2 - 4 / 4 = 1, A_1 = 1 + 1 / 4 = 1.25.
    """
    r, v, mask = torch.tensor([[1.0, 2, 4]]), torch.tensor([[2.0, 4, 8]]), torch.ones(1, 3, dtype=torch.bool)
    a, returns = adv.gae(r, v, mask, gamma=0.5, lam=0.5)
    close(a, [[1.25, 1, -4]])
    close(returns, [[3.25, 5, 4]])


def test_gae_passes_over_what_is_masked() -> None:
    """Between, before and after: the steps that count get what they get alone."""
    r, v = torch.tensor([[1.0, 2, 4]]), torch.tensor([[2.0, 4, 8]])
    alone = adv.gae(r, v, torch.ones(1, 3, dtype=torch.bool), 0.5, 0.5)
    mask = torch.tensor([[False, True, False, True, True, False]])
    wide_r, wide_v = torch.zeros(1, 6), torch.full((1, 6), math.nan)
    wide_r[mask], wide_v[mask] = r[0], v[0]
    for found, wanted in zip(adv.gae(wide_r, wide_v, mask, 0.5, 0.5), alone, strict=True):
        torch.testing.assert_close(found[mask][None], wanted)
        assert found[~mask].tolist() == [0, 0, 0]


def test_gae_at_its_ends() -> None:
    """lam 1: what came minus what was expected. lam 0: the error of one step."""
    g = torch.Generator().manual_seed(0)
    r, v = torch.randn(4, 5, generator=g).double(), torch.randn(4, 5, generator=g).double()
    mask = torch.ones(4, 5, dtype=torch.bool)
    torch.testing.assert_close(adv.gae(r, v, mask, 1.0, 1.0)[0], r.flip(1).cumsum(1).flip(1) - v)
    torch.testing.assert_close(adv.gae(r, v, mask, 1.0, 0.0)[0], r + torch.cat([v[:, 1:], 0 * v[:, :1]], 1) - v)


# --------------------------------------------------------------------------- groups


def test_grpo_by_hand() -> None:
    """Rewards 1, 2, 6: mean 3, deviation sqrt((4 + 1 + 9) / 2) = 2.645751; a flat group beside."""
    rewards = torch.tensor([[1.0, 2, 6], [0.1, 0.1, 0.1]])
    plain, scaled = adv.grpo(rewards, scale=False), adv.grpo(rewards)
    close(plain.advantages, [[-2, -1, 3], [0, 0, 0]])
    close(scaled.advantages, [[-0.755929, -0.377964, 1.133893], [0, 0, 0]])
    assert plain.flat == scaled.flat == 0.5
    assert scaled.advantages[1].tolist() == [0, 0, 0]  # exactly: rounding is not a direction


def test_rloo_by_hand() -> None:
    """Rewards 1, 2, 6: minus the means of the others, 4, 3.5, 1.5. That is N / (N - 1) = 3/2 of r - mean."""
    rewards = torch.tensor([[1.0, 2, 6], [5, 5, 5]])
    found = adv.rloo(rewards)
    close(found.advantages, [[-3, -1.5, 4.5], [0, 0, 0]])
    torch.testing.assert_close(found.advantages, 1.5 * adv.grpo(rewards, scale=False).advantages)
    assert found.flat == 0.5


@pytest.mark.parametrize("how", [adv.grpo, adv.rloo])
def test_groups_of_one_are_refused(how: object) -> None:
    for rewards in (torch.zeros(4, 1), torch.zeros(4, 0)):
        with pytest.raises(UserError, match="at least 2"):
            how(rewards)  # type: ignore[operator]


def test_a_running_baseline_by_hand() -> None:
    """Decay 1/2. Nothing seen: baseline 0. Then 2; then (2 / 4 + 4 / 2) / (1 / 4 + 1 / 2) = 10 / 3."""
    first, seen = adv.reinforce(torch.tensor([1.0, 3.0]), torch.zeros(2), 0.5)
    close(first, [1, 3])
    second, seen = adv.reinforce(torch.tensor([4.0, 4.0]), seen, 0.5)
    close(second, [2, 2])
    close(adv.reinforce(torch.tensor([4.0]), seen, 0.5)[0], [4 - 10 / 3])


# --------------------------------------------------------------------------- steps


def test_rewards_stand_at_the_last_step_that_counts() -> None:
    mask = torch.tensor([[True, True, False], [False, True, True], [True, False, False]])
    close(adv.at_end(torch.tensor([1.0, 2, 3]), mask), [[0, 1, 0], [0, 0, 2], [3, 0, 0]])
    with pytest.raises(UserError, match="at least one step"):
        adv.at_end(torch.tensor([1.0, 2, 3]), mask & torch.tensor([[True], [True], [False]]))


def test_whitening() -> None:
    """1, 2, 6: as the group above, over all steps that count; equal values become 0."""
    values, mask = torch.tensor([[1.0, 2], [6, math.inf]]), torch.tensor([[True, True], [True, False]])
    close(adv.whiten(values, mask), [[-0.755929, -0.377964], [1.133893, 0]])
    assert adv.whiten(torch.full((2, 2), 0.1), mask).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(UserError, match="at least 2 steps"):
        adv.whiten(values, torch.tensor([[True, False], [False, False]]))


def test_advantages_are_constants() -> None:
    r = torch.rand(2, 3, requires_grad=True)
    mask = torch.ones(2, 3, dtype=torch.bool)
    found = [*adv.gae(r, r, mask), adv.grpo(r).advantages, adv.rloo(r).advantages, adv.whiten(r, mask)]
    assert not any(x.requires_grad for x in [*found, adv.spread(r, mask), *adv.reinforce(r[0], torch.zeros(2))])


def test_half_precision_is_widened() -> None:
    assert adv.grpo(torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16)).advantages.dtype == torch.float32


def test_bad_input() -> None:
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(UserError, match="rewards is not finite for 1 of 2"):
        adv.rloo(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(UserError, match=r"values has the shape \(3, 2\)"):
        adv.gae(x, x.T, mask)
    with pytest.raises(UserError, match=r"mask must be bool.*torch\.int64"):
        adv.gae(x, x, mask.long())
    with pytest.raises(UserError, match=r"gamma must be .*1\.1"):
        adv.gae(x, x, mask, gamma=1.1)
    with pytest.raises(UserError, match="masked steps"):
        adv.gae(x + 1, x, torch.eye(2, 3).bool())
    with pytest.raises(UserError, match=r"torch\.zeros"):
        adv.reinforce(torch.zeros(2), torch.zeros(3))
    with pytest.raises(UserError, match=r"\(B, T\)"):
        adv.grpo(torch.zeros(4))
