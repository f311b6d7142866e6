"""Which proposals to ask about: those that a model of the answers so far promises most of.

A Gaussian process on the descriptors of the kind (afresh.alignment.surrogate) learns from what was asked and paid for;
proposals are ranked by its upper confidence bound (Srinivas et al. 2010, "Gaussian process optimization in the bandit
setting"). Its kernel and noise are chosen again each time that the answers have become half as many more, from those
that there were then, so that a search that is resumed chooses the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from afresh.alignment.surrogate.gaussian_process import choose
from afresh.alignment.surrogate.likeness import LIKENESS, descriptors_of
from afresh.core import ItemKind

Array = NDArray[np.float64]

KEPT = 1_500  # answers that the model learns from, at most: two thirds of them the best ones
CHOOSING = 400  # answers by which kernel and noise are chosen, at most
GROWTH = 1.5
SMALLEST = 1e-9  # deviation of answers that are not all equal
RANKED = 1_000  # of the best answers, that are compared for a limit of alike ones


class Promise:
    """Upper confidence bounds of the rewards of items, learnt from growing lists of items and rewards."""

    def __init__(self, kind: ItemKind) -> None:
        self.descriptors = descriptors_of(kind)
        self.rows = np.zeros((0, 0), np.float32)
        # The number of answers that they were chosen from, the shape of the kernel, and the ratio of noise.
        self.chosen = (0, 1.0, 1.0)

    def know(self, items: Sequence[Any]) -> None:
        """All items so far, of which those that were known before come first."""
        if new := list(items[len(self.rows) :]):
            rows = self.descriptors.vectors(new).astype(np.float32)
            self.rows = np.concatenate([self.rows, rows]) if len(self.rows) else rows

    def within(self, items: Sequence[Any], order: NDArray[np.int64], alike: float, most: int) -> NDArray[np.int64]:
        """The positions of the items that are kept of those at `order`, from the best on: of each kind at most `most`.
        An item is of the kind of the first one that began a kind and to which it is at least `alike`; otherwise it
        begins one."""
        self.know(items)
        order = order[:RANKED]
        rows = self.rows[order].astype(np.float64)
        similar = LIKENESS[self.descriptors.likeness](rows).similarity(rows, rows) >= alike
        leaders, counts, kept = list[int](), list[int](), list[int]()
        for i in range(len(order)):
            of = next((k for k, leader in enumerate(leaders) if similar[i, leader]), None)
            if of is None:
                leaders.append(i)
                counts.append(0)
                of = len(leaders) - 1
            counts[of] += 1
            if counts[of] <= most:
                kept.append(int(order[i]))
        return np.array(kept, dtype=np.int64)

    def learn(self, items: Sequence[Any], rewards: Sequence[float], seed: int) -> None:
        """All answers so far, of which those that were known before come first."""
        self.know(items)
        values, rng = np.asarray(rewards, dtype=np.float64), np.random.default_rng(seed)
        some = np.arange(len(values))
        if len(values) > KEPT:
            order = np.argsort(-values, kind="stable")
            best = order[: KEPT * 2 // 3]
            some = np.sort(np.concatenate([best, rng.choice(order[len(best) :], KEPT - len(best), replace=False)]))
        x, y = self.rows[some].astype(np.float64), values[some]
        self.middle, self.spread = float(y.mean()), max(float(y.std()), SMALLEST)
        y = (y - self.middle) / self.spread
        likeness = LIKENESS[self.descriptors.likeness](x)
        _, self.shape, ratio = self.chosen = self._chosen(values)
        self.known, self.likeness = x, likeness
        kernel = likeness.kernel(x, x, self.shape) + (ratio + 1e-6) * np.eye(len(x))
        self.factor = cho_factor(kernel, lower=True, overwrite_a=True)
        self.weights = cho_solve(self.factor, y)
        self.signal = max(float(y @ self.weights) / len(y), 0.0)

    def _chosen(self, values: Array) -> tuple[int, float, float]:
        """Chosen from the first answers, a number of them that depends on nothing but how many there are."""
        count = 1
        while (more := math.ceil(GROWTH * count)) <= len(values):
            count = more
        if count == self.chosen[0]:
            return self.chosen
        some = np.random.default_rng(count).permutation(count)[:CHOOSING]
        x, y = self.rows[some].astype(np.float64), values[some]
        y = (y - y.mean()) / max(float(y.std()), SMALLEST)
        return (count, *choose(x, y, np.ones(len(y)), LIKENESS[self.descriptors.likeness](x)))

    def __call__(self, items: Sequence[Any], optimism: float) -> Array:
        """Mean plus `optimism` standard deviations of each item, (n,)."""
        rows = self.descriptors.vectors(list(items))
        cross = self.likeness.kernel(rows, self.known, self.shape)
        explained = np.square(solve_triangular(self.factor[0], cross.T, lower=True)).sum(0)
        left = np.maximum(self.likeness.diagonal(rows, self.shape) - explained, 0)
        bound: Array = self.middle + self.spread * (cross @ self.weights + optimism * np.sqrt(self.signal * left))
        return bound


def promise_of(kind: ItemKind) -> Promise | None:
    """None for kinds without descriptors."""
    return None if kind.descriptors is None and kind.features is None else Promise(kind)
