"""Marks in texts whose tokens are drawn in any order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.engine.sampling.masked import Order, Unmask, fill, fill_long
from afresh.engine.sampling.tokens import Cut
from afresh.services.watermark.detection import watermark_test
from afresh.services.watermark.marked_text import AnyOrder
from afresh.services.watermark.watermark import Watermark

V, LENGTH = 200, 150
MARK = Watermark(b"a key of some bytes", context=1)


def flat(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """Every token is as likely as the others, at every position."""
    return torch.zeros(len(x), x.shape[1] - 1, V), state


def filled(index: list[int], watermark: Watermark | None, order: Order = "random", steps: int = 0) -> Tensor:
    x = torch.full((len(index), LENGTH + 1), V)
    x[:, 0] = 0
    by = Unmask(V, Cut(), steps, order, (), watermark)
    rows = torch.tensor(index)
    return fill(flat, x, x[:, 1:] == V, Cond(len(index)), Rng(2), rows, by, "test")[:, 1:]


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_a_row_is_the_same_alone_and_beside_others(order: Order) -> None:
    together = filled([0, 1, 2], MARK, order)
    assert torch.equal(together, torch.cat([filled([i], MARK, order) for i in range(3)]))
    assert not torch.equal(together, filled([0, 1, 2], None, order))


def test_half_of_the_tokens_are_marked_with_contexts_of_one_token() -> None:
    """Drawn one by one in a random order: enough to find the texts, though less than from left to right."""
    found = [watermark_test(row, MARK).p_value for row in filled(list(range(20)), MARK).tolist()]
    assert sum(p < 1e-3 for p in found) >= 16
    plain = [watermark_test(row, MARK).p_value for row in filled(list(range(20)), None).tolist()]
    assert sum(p < 1e-2 for p in plain) <= 2


def test_tokens_that_are_drawn_at_once_are_no_contexts_of_each_other() -> None:
    assert torch.equal(filled([0, 1], MARK, steps=1), filled([0, 1], None, steps=1))


def test_only_what_was_drawn_is_a_context_and_none_is_used_twice() -> None:
    tokens = torch.tensor([[3, 4, 5, 9, 4, 7, 9]])
    drawn = torch.tensor([[False, True, True, True, True, True, True]])
    hidden = torch.tensor([[False, False, False, True, False, True, True]])
    wanted = torch.tensor([[False, True, True, True, False, True, True]])
    marks = AnyOrder.of(MARK, drawn, Rng(0), torch.tensor([0]))
    keys = marks.keys(tokens, hidden, wanted)
    four, five = MARK.context_keys(torch.tensor([[4], [5]])).tolist()
    assert keys.tolist() == [0, four, five, 0, 0]  # 3 was given; 4 occurs again; the one before is hidden
    marks.remember(keys, wanted, wanted & (tokens != 9))
    assert marks.keys(tokens, hidden, wanted).tolist() == [0, 0, five, 0, 0]


def test_contexts_are_known_across_windows() -> None:
    """A text of several windows never uses a context twice, whichever window it is in."""
    x = torch.full((2, 101), V)
    x[:, 0] = 0
    marks: list[Unmask] = [Unmask(V, Cut(), 0, "random", (), m) for m in (MARK, None)]
    drawn = [
        fill_long(flat, x, torch.ones(2, 100, dtype=torch.bool), Cond(2), Rng(2), torch.arange(2), 20, by)
        for by in marks
    ]
    assert not torch.equal(*drawn)
    alone = fill_long(
        flat, x[1:], torch.ones(1, 100, dtype=torch.bool), Cond(1), Rng(2), torch.tensor([1]), 20, marks[0]
    )
    assert torch.equal(drawn[0][1:], alone)
