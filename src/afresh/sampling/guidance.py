"""Guidance: a wrapper from one `Predict` to another; samplers never learn of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Predict


@dataclass
class Both:
    """The state of a guided model: rows with their conditions, then the same rows without."""

    inner: Any
    size: int

    def select(self, rows: Tensor) -> Both:
        return Both(self.inner.select(torch.cat([rows, rows + self.size])), len(rows))

    def restart(self, rows: Tensor) -> None:
        self.inner.restart(torch.cat([rows, rows + self.size]))


def classifier_free(predict: Predict, scale: float) -> Predict:
    """null + scale * (conditional - null) on a velocity or on logits (Ho and Salimans 2022, eq. 6).

    `scale` 1 is the plain conditional model, 0 the unconditional one. Both halves run as one batch, and a
    key/value cache, where there is one, holds both: conditional rows first.
    """
    if scale == 1.0:
        return predict

    def guided(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        both = Cond.cat([cond, cond.null()])
        time = torch.cat([t, t]) if isinstance(t, Tensor) and t.dim() else t
        out, inner = predict(torch.cat([x, x]), time, both, None if state is None else state.inner)
        conditional, null = out.chunk(2)
        return null + scale * (conditional - null), None if inner is None else Both(inner, len(x))

    return guided
