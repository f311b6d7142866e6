"""A state for toy models of the next token: the tokens that each row was fed since its window began."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Predict


@dataclass
class Fed:
    rows: list[list[int]]

    def select(self, rows: Tensor) -> Fed:
        return Fed([list(self.rows[i]) for i in rows.tolist()])

    def restart(self, rows: Tensor) -> None:
        for i in rows.tolist():
            self.rows[i] = []


def model(logits: Callable[[list[int]], Tensor]) -> Predict:
    """A `Predict` whose logits (V,) are a function of the tokens of a row's window."""

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        assert cond.size == len(x)
        state = Fed([[] for _ in x]) if state is None else replace(state)
        assert len(state.rows) == len(x)
        counts = [x.shape[1]] * len(x) if t is None else t.tolist()
        for row, new, count in zip(state.rows, x.tolist(), counts, strict=True):
            assert count >= 1
            row += new[:count]
        return torch.stack([logits(row) for row in state.rows]), state

    return predict
