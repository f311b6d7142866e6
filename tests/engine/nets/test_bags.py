"""Networks over bags against their dense form, in which a bag is written out over the catalogue."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.engine.nets.bags import Bag, BagDecoder, BagEncoder, bag_nats, is_first, is_in

ITEMS, NOTHING = 9, 9
TOKENS = torch.tensor([[3, 1, 3, 8], [0, 9, 9, 9], [9, 9, 9, 9], [5, 5, 5, 2]])
INSIDE = TOKENS != NOTHING


def multi_hot(tokens: Tensor) -> Tensor:
    """(B, V), one for each item of a row."""
    return F.one_hot(tokens, ITEMS + 1).amax(1)[:, :ITEMS].float()


def test_an_item_that_occurs_again_is_not_its_first() -> None:
    expected = [[True, True, False, True], [True, True, False, False], [True, False, False, False]]
    assert is_first(TOKENS[:3]).tolist() == expected


def test_a_bag_is_a_row_of_length_one_over_the_catalogue() -> None:
    bag = Bag.of(TOKENS, INSIDE)
    written_out = torch.zeros(4, ITEMS + 1).scatter_add_(1, bag.tokens, bag.weight)
    assert torch.allclose(written_out[:, :ITEMS], F.normalize(multi_hot(TOKENS), dim=1))
    assert not written_out[:, NOTHING].any()


def test_the_sum_of_embeddings_is_the_linear_layer_of_the_multi_hot_row_and_so_are_its_gradients() -> None:
    torch.manual_seed(0)
    net, c = BagEncoder(ITEMS + 1, 6, 3, 5), torch.randn(4, 6)
    mean, log_var = net(Bag.of(TOKENS, INSIDE), c)
    (mean.square().sum() + log_var.sum()).backward()
    weight = net.embedding.weight.detach().clone().requires_grad_(True)
    x = F.normalize(multi_hot(TOKENS), dim=1)
    out = net.last(torch.tanh(x @ weight[:ITEMS] + net.condition(c)))
    assert torch.allclose(torch.cat([mean, log_var], 1), out, atol=1e-6)
    (out[:, :3].square().sum() + out[:, 3:].sum()).backward()
    assert net.embedding.weight.grad is not None and weight.grad is not None
    assert torch.allclose(net.embedding.weight.grad, weight.grad, atol=1e-6)


def test_what_stands_behind_a_bag_and_the_order_of_its_items_change_nothing() -> None:
    torch.manual_seed(0)
    net, c = BagEncoder(ITEMS + 1, 6, 3, 5), torch.zeros(1, 6)
    first, _ = net(Bag.of(torch.tensor([[3, 1, 8]]), torch.ones(1, 3, dtype=torch.bool)), c)
    padded = torch.tensor([[8, 3, 1, 3, 7]])
    other, _ = net(Bag.of(padded, torch.tensor([[True, True, True, True, False]])), c)
    assert torch.allclose(first, other, atol=1e-6)


def test_the_decoder_gives_a_distribution_over_the_items_alone() -> None:
    torch.manual_seed(0)
    logs = BagDecoder(ITEMS + 1, {NOTHING}, 6, 3, 5)(torch.randn(4, 3), torch.randn(4, 6))
    assert torch.allclose(logs[:, :ITEMS].exp().sum(1), torch.ones(4))
    assert (logs[:, NOTHING] == -math.inf).all()
    counts = torch.zeros(4, ITEMS).scatter_add_(1, TOKENS.clamp_max(ITEMS - 1), INSIDE.float())
    expected = -(counts * logs[:, :ITEMS]).sum(1)
    assert torch.allclose(bag_nats(logs, TOKENS, INSIDE), expected, rtol=1e-5)


def test_negatives_that_are_the_whole_catalogue_give_the_exact_loss() -> None:
    torch.manual_seed(0)
    net, z, c = BagDecoder(ITEMS + 1, {NOTHING}, 6, 3, 5), torch.randn(4, 3), torch.randn(4, 6)
    every = torch.arange(ITEMS)
    exact = bag_nats(net(z, c), TOKENS, INSIDE)
    assert torch.allclose(net.sampled_nats(z, c, TOKENS, INSIDE, every), exact, atol=1e-5)
    assert torch.allclose(net.sampled_nats(z, c, TOKENS, INSIDE, every.repeat(3)), exact, atol=1e-5)


def test_sampled_normalisers_are_unbiased() -> None:
    torch.manual_seed(0)
    net, z, c, draws = BagDecoder(ITEMS + 1, {NOTHING}, 6, 3, 5), torch.randn(4, 3), torch.randn(4, 6), 2_000
    exact, n = bag_nats(net(z, c), TOKENS, INSIDE), INSIDE.sum(1)
    with torch.no_grad():
        each = [net.sampled_nats(z, c, TOKENS, INSIDE, torch.randint(ITEMS, (40,))) for _ in range(draws)]
        # minus the log-likelihood is n times the log of the normaliser, less the scores of the items themselves
        ratio = ((torch.stack(each) - exact) / n.clamp_min(1)).exp()
    assert torch.allclose(ratio.mean(0), torch.ones(4), atol=0.01)


def test_membership_is_by_row_and_counts_what_is_inside() -> None:
    found = is_in(torch.tensor([9, 3, 0]), TOKENS, INSIDE)
    assert found.tolist() == [[False, True, False], [False, False, True], [False] * 3, [False] * 3]
