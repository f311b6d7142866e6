"""Guidance: wrappers from one `Predict` to another; samplers never learn of it.

They combine from the inside out: `composed` or `classifier_free`, then `autoguidance`, then `interval`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Predict, UserError

Branches = Callable[[Cond], Sequence[tuple[float, Cond]]]  # of a request: (scale, what is asked instead)


@dataclass
class Beside:
    """The state of a guided model: the rows of each of `count` branches, one branch after the other."""

    inner: Any
    size: int
    count: int

    def _all(self, rows: Tensor) -> Tensor:
        return torch.cat([rows + i * self.size for i in range(self.count)])

    def select(self, rows: Tensor) -> Beside:
        return Beside(self.inner.select(self._all(rows)), len(rows), self.count)

    def restart(self, rows: Tensor) -> None:
        self.inner.restart(self._all(rows))


def _steered(predict: Predict, branches: Branches) -> Predict:
    """null + sum_k scale_k (branch_k - null), all branches and null in one batch, null last.

    In null's place is the request's negative, where it has one (core.Cond.away).
    """

    def guided(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        asked = branches(replace(cond, negative=None))
        every = Cond.cat([*(c for _, c in asked), cond.away()])
        n = len(asked) + 1
        time = torch.cat([t] * n) if isinstance(t, Tensor) and t.dim() else t
        out, inner = predict(torch.cat([x] * n), time, every, None if state is None else state.inner)
        *parts, null = out.chunk(n)
        moved = null
        for (scale, _), part in zip(asked, parts, strict=True):
            moved = moved + scale * (part - null)
        return moved, None if inner is None else Beside(inner, len(x), n)

    return guided


def classifier_free(predict: Predict, scale: float) -> Predict:
    """null + scale * (conditional - null) on a velocity or on logits (Ho and Salimans 2022, eq. 6).

    `scale` 1 is the plain conditional model, 0 the unconditional one. Both halves run as one batch, and a
    key/value cache, where there is one, holds both: conditional rows first. A request with a negative is steered away
    from that instead of from null.
    """
    if scale == 1.0:
        return predict
    return _steered(predict, lambda cond: [(scale, cond)])


def composed(predict: Predict, weights: Mapping[str, float], scale: float = 1.0) -> Predict:
    """null + sum_k weights[k] (only part k - null), each part with a scale of its own (Liu et al. 2022, sec. 4).

    Parts that are not named go together as one more term, with `scale`; without weights this is `classifier_free`. A
    weight below zero steers away from what the part asks. One batch of all terms and null. Raises UserError for a
    part that the request does not know.
    """
    if not weights:
        return classifier_free(predict, scale)

    def branches(cond: Cond) -> list[tuple[float, Cond]]:
        unknown = sorted(set(weights) - set(cond.parts))
        if unknown:
            raise UserError(
                f"There is no part named {', '.join(unknown)} to weigh. Known: {', '.join(cond.parts) or 'none'}."
            )
        own = [(w, cond.null(set(cond.parts) - {k})) for k, w in weights.items()]
        return own if set(weights) == set(cond.parts) else [*own, (scale, cond.null(weights))]

    return _steered(predict, branches)


def autoguidance(strong: Predict, weak: Predict, scale: float) -> Predict:
    """weak + scale * (strong - weak), weak being a worse model of the same thing (Karras et al. 2024).

    `scale` 1 is the strong model alone. `strong` may be guided itself; its state is kept, that of `weak` is not.
    """
    if scale == 1.0:
        return strong

    def guided(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        worse, _ = weak(x, t, cond, None)
        better, state = strong(x, t, cond, state)
        return worse + scale * (better - worse), state

    return guided


def interval(guided: Predict, plain: Predict, low: float = 0.0, high: float = 1.0) -> Predict:
    """`guided` at times within [low, high], `plain` outside (Kynkaanniemi et al. 2024, sec. 3).

    Outside only `plain` is evaluated. For times t (B,) in [0, 1] and models without a state.
    """
    if guided is plain or (low <= 0 and high >= 1):
        return guided

    def within(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        inside = (t >= low) & (t <= high)
        if bool(inside.all()):
            return guided(x, t, cond, state)
        if not bool(inside.any()):
            return plain(x, t, cond, state)
        a, b = guided(x, t, cond, state)[0], plain(x, t, cond, state)[0]
        return torch.where(inside.view(-1, *[1] * (x.dim() - 1)), a, b), state

    return within
