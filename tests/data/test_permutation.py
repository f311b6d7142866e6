"""Orders hold each example once, whatever their size, and look random without a list of them."""

from __future__ import annotations

import pytest
import torch

from afresh.core.rng import Rng
from afresh.data.permutation import LISTED, Order, permuted

# Around powers of two, of which tables with as many rows as columns are, and around squares.
SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 24, 25, 26, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 4095, 4097]


@pytest.mark.parametrize("count", SIZES)
def test_every_place_is_another_example(count: int) -> None:
    for seed in range(40):
        order = permuted(torch.arange(count), count, Rng(seed), f"epoch/{seed % 3}")
        assert torch.equal(order.sort().values, torch.arange(count)), (count, seed)


def test_every_place_of_a_large_order_is_another_example() -> None:
    count = LISTED + 12_345
    order = Order(Rng(5), "epoch/0", count)
    assert order.listed is None
    assert torch.equal(order.at(torch.arange(count)).sort().values, torch.arange(count))


def test_places_are_computed_alone_as_with_others() -> None:
    count = 3 * (1 << 40) + 7  # no list of so many is ever made
    places = torch.tensor([0, 1, 2, count // 2, count - 1])
    together = permuted(places, count, Rng(1), "epoch/4")
    assert [int(permuted(places[i : i + 1], count, Rng(1), "epoch/4")) for i in range(5)] == together.tolist()
    assert bool(((together >= 0) & (together < count)).all()) and len(set(together.tolist())) == 5


def test_orders_differ_by_seed_and_purpose() -> None:
    orders = {
        tuple(permuted(torch.arange(100), 100, Rng(seed), purpose).tolist())
        for seed in range(10)
        for purpose in ("epoch/0", "epoch/1")
    }
    assert len(orders) == 20


def test_a_large_order_is_as_uncorrelated_as_a_random_one() -> None:
    """Ranks of neighbours, and of places with their examples, are uncorrelated (|r| < 4 / sqrt(n)), and each tenth of
    the places has a tenth of each tenth of the examples (chi-squared, 81 degrees: 99.99% < 137)."""
    count = 100_003
    order = permuted(torch.arange(count), count, Rng(2), "epoch/0").double()
    place = torch.arange(count).double()
    for a, b in ((order[1:], order[:-1]), (order, place)):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / count**0.5
    cells = torch.bincount((place * 10 / count).long() * 10 + (order * 10 / count).long(), minlength=100).double()
    assert float(((cells - count / 100) ** 2 / (count / 100)).sum()) < 137


def test_all_orders_of_few_examples_occur_about_equally_often() -> None:
    """Of three examples in 3,000 epochs (chi-squared, 5 degrees: 99.99% < 26)."""
    orders = [tuple(permuted(torch.arange(3), 3, Rng(0), f"epoch/{e}").tolist()) for e in range(3000)]
    counts = [orders.count(o) for o in set(orders)]
    assert len(counts) == 6 and sum((c - 500) ** 2 / 500 for c in counts) < 26
