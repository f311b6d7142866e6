"""Which proposals to ask about: those that a model of the answers so far values most.

A Gaussian process on the descriptors of the kind learns from what was asked and paid for; proposals are ranked by its
upper confidence bound (Srinivas et al. 2010, "Gaussian process optimization in the bandit setting"). Its kernel and
noise are chosen again each time that the answers have become half as many more, from those that there were then, so
that a search that is resumed chooses the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import ItemKind
from afresh.engine.alignment.surrogate.gaussian_process import choose, fit_around_mean
from afresh.engine.alignment.surrogate.likeness import LIKENESS, descriptors_of

Array = NDArray[np.float64]

KEPT = 1_500  # answers that the model learns from, at most: two thirds of them the best ones
CHOOSING = 400  # answers by which kernel and noise are chosen, at most
GROWTH = 1.5
SMALLEST = 1e-9  # deviation of answers that are not all equal
RANKED = 1_000  # of the best answers, that are compared for a limit of similar ones


class Screening:
    """Upper confidence bounds of the rewards of items, learnt from growing lists of items and rewards."""

    def __init__(self, kind: ItemKind) -> None:
        self.descriptors = descriptors_of(kind)
        self.rows = np.zeros((0, 0), np.float32)
        # The number of answers that they were chosen from, the shape of the kernel, and the ratio of noise.
        self.chosen = (0, 1.0, 1.0)

    def describe(self, items: Sequence[Any]) -> None:
        """Compute the descriptors of all items so far, of which those that were described before come first."""
        if new := list(items[len(self.rows) :]):
            rows = self.descriptors.vectors(new).astype(np.float32)
            self.rows = np.concatenate([self.rows, rows]) if len(self.rows) else rows

    def limit_similar(
        self, items: Sequence[Any], order: NDArray[np.int64], alike: float, most: int
    ) -> NDArray[np.int64]:
        """Go through the positions `order` from the best to the worst and keep an item unless `most` items of its
        cluster were kept. A cluster is led by its first item; an item joins the first leader to which it is at least
        `alike` similar."""
        self.describe(items)
        order = order[:RANKED]
        rows = self.rows[order].astype(np.float64)
        similar = LIKENESS[self.descriptors.likeness](rows).similarity(rows, rows) >= alike
        leaders, counts, kept = list[int](), list[int](), list[int]()
        for i in range(len(order)):
            cluster = next((k for k, leader in enumerate(leaders) if similar[i, leader]), None)
            if cluster is None:
                leaders.append(i)
                counts.append(0)
                cluster = len(leaders) - 1
            counts[cluster] += 1
            if counts[cluster] <= most:
                kept.append(int(order[i]))
        return np.array(kept, dtype=np.int64)

    def learn(self, items: Sequence[Any], rewards: Sequence[float], seed: int) -> None:
        """Learn from all answers so far, of which those that were known before come first."""
        self.describe(items)
        values, rng = np.asarray(rewards, dtype=np.float64), np.random.default_rng(seed)
        some = np.arange(len(values))
        if len(values) > KEPT:
            order = np.argsort(-values, kind="stable")
            best = order[: KEPT * 2 // 3]
            some = np.sort(np.concatenate([best, rng.choice(order[len(best) :], KEPT - len(best), replace=False)]))
        x = self.rows[some].astype(np.float64)
        _, shape, ratio = self.chosen = self._choose(values)
        self.process = fit_around_mean(x, values[some], LIKENESS[self.descriptors.likeness](x), shape, ratio)

    def _choose(self, values: Array) -> tuple[int, float, float]:
        """Shape and ratio by the first answers, a number of them that depends on nothing but how many there are."""
        count = 1
        while (more := math.ceil(GROWTH * count)) <= len(values):
            count = more
        if count == self.chosen[0]:
            return self.chosen
        some = np.random.default_rng(count).permutation(count)[:CHOOSING]
        x, y = self.rows[some].astype(np.float64), values[some]
        y = (y - y.mean()) / max(float(y.std()), SMALLEST)
        return (count, *choose(x, y, np.ones(len(y)), LIKENESS[self.descriptors.likeness](x)))

    def bounds(self, items: Sequence[Any], optimism: float) -> Array:
        """Mean plus `optimism` standard deviations of each item, (n,)."""
        means, variances = self.process.predict(self.descriptors.vectors(list(items)))
        bounds: Array = means + optimism * np.sqrt(variances)
        return bounds


def screening_of(kind: ItemKind) -> Screening | None:
    """None for kinds without descriptors."""
    return None if kind.descriptors is None and kind.features is None else Screening(kind)
