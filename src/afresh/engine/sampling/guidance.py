"""Guidance as functions from one `Predict` to another, independent of the sampler.

They are applied in this order: `compose_guidance` or `classifier_free`, `autoguidance`, `interval`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Predict, UserError

Branches = Callable[[Cond], Sequence[tuple[float, Cond]]]  # request -> (scale, request of the branch)


@dataclass
class BranchState:
    """The state of a guided model: the states of `count` branches, one after the other along the rows."""

    inner: Any
    size: int
    count: int

    def _all(self, rows: Tensor) -> Tensor:
        return torch.cat([rows + i * self.size for i in range(self.count)])

    def select(self, rows: Tensor) -> BranchState:
        """Return the state of the given rows."""
        return BranchState(self.inner.select(self._all(rows)), len(rows), self.count)

    def extend(self, count: int) -> BranchState:
        """The same rows and `count` empty ones after them, in every branch."""
        extended, old = self.inner.extend(count * self.count), self.size * self.count
        rows = [
            row
            for i in range(self.count)
            for row in (*range(i * self.size, (i + 1) * self.size), *range(old + i * count, old + (i + 1) * count))
        ]
        return BranchState(extended.select(torch.tensor(rows)), self.size + count, self.count)

    def restart(self, rows: Tensor) -> None:
        """Empty the state of the given rows."""
        self.inner.restart(self._all(rows))


def _combined(predict: Predict, branches: Branches) -> Predict:
    """null + sum_k scale_k (branch_k - null), with all branches and null in one batch, null last.

    If a request has a negative, it takes the place of null (core.Cond.negative_or_null).
    """

    def guided(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        terms = branches(replace(cond, negative=None))
        every = Cond.cat([*(c for _, c in terms), cond.negative_or_null()])
        n = len(terms) + 1
        time = torch.cat([t] * n) if isinstance(t, Tensor) and t.dim() else t
        out, inner = predict(torch.cat([x] * n), time, every, None if state is None else state.inner)
        *parts, null = out.chunk(n)
        total = null
        for (scale, _), part in zip(terms, parts, strict=True):
            total = total + scale * (part - null)
        return total, None if inner is None else BranchState(inner, len(x), n)

    return guided


def classifier_free(predict: Predict, scale: float) -> Predict:
    """null + scale * (conditional - null), of a velocity or of logits (Ho and Salimans 2022, eq. 6).

    `scale` 1 is the conditional model, 0 the unconditional one. Both are evaluated in one batch, and a key/value cache
    holds both, conditional rows first. If a request has a negative, it takes the place of null.
    """
    if scale == 1.0:
        return predict
    return _combined(predict, lambda cond: [(scale, cond)])


def compose_guidance(predict: Predict, weights: Mapping[str, float], scale: float = 1.0) -> Predict:
    """null + sum_k weights[k] (only part k - null), with a scale for each part (Liu et al. 2022, sec. 4).

    All other parts form one more term, with `scale`; without weights this is `classifier_free`. A negative weight
    guides away from a part. All terms and null are evaluated in one batch. Raises UserError for an unknown part.
    """
    if not weights:
        return classifier_free(predict, scale)

    def branches(cond: Cond) -> list[tuple[float, Cond]]:
        unknown = sorted(set(weights) - set(cond.parts))
        if unknown:
            raise UserError(
                f"The condition has no part named {', '.join(unknown)}. Its parts: {', '.join(cond.parts) or 'none'}."
            )
        own = [(w, cond.null(set(cond.parts) - {k})) for k, w in weights.items()]
        return own if set(weights) == set(cond.parts) else [*own, (scale, cond.null(weights))]

    return _combined(predict, branches)


def autoguidance(strong: Predict, weak: Predict, scale: float) -> Predict:
    """weak + scale * (strong - weak), where `weak` is a worse model of the same data (Karras et al. 2024).

    `scale` 1 is the strong model. `strong` may be guided; its state is returned, while `weak` is evaluated without one.
    """
    if scale == 1.0:
        return strong

    def guided(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        worse, _ = weak(x, t, cond, None)
        better, state = strong(x, t, cond, state)
        return worse + scale * (better - worse), state

    return guided


def interval(guided: Predict, plain: Predict, low: float = 0.0, high: float = 1.0) -> Predict:
    """`guided` at times within [low, high], `plain` at others (Kynkaanniemi et al. 2024, sec. 3).

    Outside of the interval only `plain` is evaluated. For times t (B,) in [0, 1] and models without a state.
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
