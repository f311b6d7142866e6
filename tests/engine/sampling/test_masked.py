"""Unmasking against joint distributions with known conditionals, and the inputs and outputs of each evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.engine.sampling.guidance import classifier_free
from afresh.engine.sampling.masked import Order, Unmask, fill, fill_long, ranks
from afresh.engine.sampling.tokens import Cut

MASK = 3
JOINT = torch.tensor(
    [[0.30, 0.02, 0.08], [0.05, 0.25, 0.05], [0.01, 0.04, 0.20]], dtype=torch.float64
)  # p(x0, x1), far from independent


def exact(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """log p(position | visible tokens) under JOINT for windows of two positions (B, 3) -> (B, 2, 3)."""
    a, b = x[:, 1], x[:, 2]
    first = torch.where((b == MASK)[:, None], JOINT.sum(1), JOINT.T[b.clamp_max(2)])
    second = torch.where((a == MASK)[:, None], JOINT.sum(0), JOINT[a.clamp_max(2)])
    return torch.stack([first, second], 1).log(), state


def how(steps: int = 0, order: Order = "random", banned: tuple[int, ...] = (), **cut: Any) -> Unmask:
    return Unmask(MASK, Cut(**cut), steps, order, banned)


def pairs(n: int, by: Unmask, predict: Any = exact, cond: Cond | None = None) -> Tensor:
    """Counts (3, 3) of n pairs drawn from two masked positions."""
    x = torch.tensor([[0, MASK, MASK]]).repeat(n, 1)
    out = fill(predict, x, x[:, 1:] == MASK, cond or Cond(n), Rng(0), torch.arange(n), by, "test")
    return torch.bincount(out[:, 1] * 3 + out[:, 2], minlength=9).view(3, 3)


def fits(count: Tensor, p: Tensor) -> bool:
    expected = (p.double() / p.double().sum() * count.sum()).flatten()
    return bool(chisquare(count.flatten().numpy(), expected.numpy()).pvalue > 1e-3)


def test_ranks_are_among_the_marked_positions_only() -> None:
    key, among = torch.tensor([[5, 1, 9, 3]]), torch.tensor([[True, False, True, True]])
    assert ranks(key, among)[0, [0, 2, 3]].tolist() == [1, 2, 0] and int(ranks(key, among)[0, 1]) == 3
    assert ranks(-key.double(), among)[0, [0, 2, 3]].tolist() == [1, 0, 2]


def test_one_position_at_a_time_draws_from_the_joint() -> None:
    assert fits(pairs(20_000, how()), JOINT)
    assert fits(pairs(20_000, how(steps=2)), JOINT)


def test_all_at_once_draws_from_the_marginals() -> None:
    apart = JOINT.sum(1)[:, None] * JOINT.sum(0)[None]
    count = pairs(20_000, how(steps=1))
    assert fits(count, apart) and not fits(count, JOINT)


def test_banned_tokens_are_never_drawn_and_the_others_keep_their_ratios() -> None:
    count = pairs(20_000, how(banned=(2,)))
    assert int(count[2].sum() + count[:, 2].sum()) == 0
    first, both = JOINT.sum(1)[:2], JOINT[:2, :2] / JOINT[:2, :2].sum(1, keepdim=True)
    second, back = JOINT.sum(0)[:2], JOINT[:2, :2] / JOINT[:2, :2].sum(0, keepdim=True)
    either = (first / first.sum())[:, None] * both + (second / second.sum())[None] * back  # each order half of the time
    assert fits(count[:2, :2], either)


def test_guidance_is_the_power_of_the_ratio() -> None:
    """p(x) proportional to null^(1 - g) conditional^g (Schiff et al. 2024), for a single position."""
    null, asked = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        return torch.where(cond.present["label"][:, None, None], asked.log(), null.log()).expand(-1, 1, -1), state

    n = 20_000
    cond = Cond(n, {"label": torch.zeros(n, dtype=torch.int64)}, {"label": torch.ones(n, dtype=torch.bool)})
    x = torch.tensor([[0, MASK]]).repeat(n, 1)
    for g in (0.0, 1.0, 2.5):
        guided = classifier_free(predict, g)
        out = fill(guided, x, x[:, 1:] == MASK, cond, Rng(1), torch.arange(n), how(), "test")
        assert fits(torch.bincount(out[:, 1], minlength=3), null ** (1 - g) * asked**g)


class Spy:
    """Predicts the position mod 3, most confident where `sure` (T,) is largest; records every window."""

    def __init__(self, sure: Tensor) -> None:
        self.sure, self.seen = sure, list[Tensor]()

    def __call__(self, x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        self.seen.append(x.clone())
        likely = torch.nn.functional.one_hot(torch.arange(x.shape[1] - 1) % 3, 3) * self.sure[:, None]
        return likely.expand(len(x), -1, -1).clone(), state


@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize("steps,evaluations", [(0, 6), (1, 1), (4, 4), (50, 6)])
def test_positions_are_unmasked_evenly_and_stay(order: Order, steps: int, evaluations: int) -> None:
    spy = Spy(torch.full((8,), 9.0))
    x = torch.tensor([[0, MASK, MASK, 1, MASK, MASK, MASK, 2, MASK]])
    before = x.clone()
    out = fill(spy, x, x[:, 1:] == MASK, Cond(1), Rng(0), torch.arange(1), how(steps, order), "test")
    assert len(spy.seen) == evaluations and torch.equal(x, before)
    assert not bool((out == MASK).any()) and out[0, [0, 3, 7]].tolist() == [0, 1, 2]
    for i, (a, b) in enumerate(zip(spy.seen, [*spy.seen[1:], out], strict=True)):
        shown = (a == MASK) & (b != MASK)
        assert torch.equal(a[a != MASK], b[a != MASK])  # what is shown is carried over
        assert int(shown.sum()) == (i + 1) * 6 // evaluations - i * 6 // evaluations


def test_the_most_confident_come_first_and_the_random_order_differs() -> None:
    sure = torch.tensor([3.0, 8.0, 5.0, 12.0])
    for order, expected in (("confidence", True), ("random", False)):
        spy = Spy(sure)
        x = torch.full((1, 5), MASK)
        fill(spy, x, x[:, 1:] == MASK, Cond(1), Rng(3), torch.arange(1), how(0, order, temperature=0), "test")
        places = [int((a != b)[0].nonzero()) - 1 for a, b in zip(spy.seen, spy.seen[1:], strict=False)]
        assert (places == [3, 1, 2]) == expected


def test_rows_with_more_and_fewer_masks_are_independent() -> None:
    x = torch.full((3, 3), MASK)
    x[:, 0] = 0
    x[1, 1] = 2
    x[2, 1:] = torch.tensor([0, 1])
    together = fill(exact, x, x[:, 1:] == MASK, Cond(3), Rng(0), torch.arange(3), how(), "test")
    for i in range(3):
        part, row = x[i : i + 1], torch.tensor([i])
        alone = fill(exact, part, part[:, 1:] == MASK, Cond(1), Rng(0), row, how(), "test")
        assert torch.equal(alone, together[i : i + 1])
    assert int(together[1, 1]) == 2 and together[2].tolist() == [0, 0, 1]


def test_long_texts_are_filled_half_a_window_at_a_time() -> None:
    spy = Spy(torch.full((6,), 9.0))
    x = torch.full((1, 15), MASK)
    x[0, 0] = 0
    wanted = torch.ones(1, 14, dtype=torch.bool)
    out = fill_long(spy, x, wanted, Cond(1), Rng(0), torch.arange(1), 6, how(1))
    assert not bool((out == MASK).any()) and len(spy.seen) == 4  # 6 places, then 3, 3 and 2
    for window in spy.seen[1:]:
        assert (
            window.shape == (1, 7) and not bool((window[:, :4] == MASK).any()) and bool((window[:, 4:] == MASK).all())
        )


def test_long_texts_keep_known_tokens_and_fill_wanted_ones_only() -> None:
    x = torch.full((1, 15), MASK)
    x[0, [0, 2, 11]] = torch.tensor([0, 1, 1])
    wanted = (x[:, 1:] == MASK) & (torch.arange(14) != 8)
    out = fill_long(Spy(torch.full((6,), 9.0)), x, wanted, Cond(1), Rng(0), torch.arange(1), 6, how())
    assert out[0, [0, 2, 11]].tolist() == [0, 1, 1] and (out[0] == MASK).nonzero()[:, 0].tolist() == [9]


def test_a_hole_at_the_end_of_a_window_is_filled_by_the_next_window() -> None:
    """Unless the text ends there, and independently of the batch."""
    x = torch.full((2, 15), MASK)
    x[0] = 0
    x[0, [6, 9]] = MASK  # the last place of the first window of six, and the last of the second
    x[1, :7] = 0
    x[1, 5] = MASK  # a text that ends with that window
    wanted = x[:, 1:] == MASK
    wanted[1, 6:] = False
    spy = Spy(torch.full((6,), 9.0))
    out = fill_long(spy, x, wanted, Cond(2), Rng(0), torch.arange(2), 6, how(1), margin=2)
    assert not bool((out[0] == MASK).any()) and int(out[1, 5]) != MASK
    hidden = [(window == MASK).nonzero().tolist() for window in spy.seen]
    assert hidden == [[[0, 5]], [[0, 3], [0, 6]], [[0, 3]]]  # the second row, then the first row twice


def test_no_window_begins_after_an_end() -> None:
    spy = Spy(torch.full((6,), 9.0))
    x = torch.full((1, 40), MASK)
    x[0, 0] = 0
    fill_long(spy, x, torch.ones(1, 39, dtype=torch.bool), Cond(1), Rng(0), torch.arange(1), 6, how(1), end=2)
    assert len(spy.seen) == 1
