"""Whether the estimates of alignment/off_policy.py keep what they promise: `python -m benchmarks off_policy`.

Simulated users, whose chances to click each of 50 items are known, are shown lists that one policy draws, and what
another would have earned is estimated from their clicks, 200 times. Printed are, for each estimate, the share of
repeats with the true value inside the 95% interval, the mean error, the deviation and the mean width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from afresh.engine.alignment.off_policy import ShownItems, cross_fitted, off_policy, refusal
from benchmarks.common.benchmark import Benchmark

Array = NDArray[np.float64]

REPEATS, LISTS, ITEMS, KINDS, FACTORS = 200, 1_000, 50, 20, 4


def softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def world(seed: int) -> tuple[Array, Array, Array]:
    """(old, new, worth), each (KINDS, ITEMS): two policies and the chance of a click, for kinds of users."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(KINDS, FACTORS)) @ rng.normal(size=(FACTORS, ITEMS)) / FACTORS**0.5
    appeal = rng.normal(size=ITEMS)
    worth = 1 / (1 + np.exp(1.5 - taste - appeal))
    old = softmax(0.5 * appeal + rng.normal(0, 0.3, (KINDS, ITEMS)))
    return old, softmax(0.7 * taste + 0.5 * appeal), worth


def places(policy: Array, items: NDArray[np.int64]) -> Array:
    """(lists, places): the probability of each item of lists drawn without replacement, given those before."""
    own = np.take_along_axis(policy, items, 1)
    return np.asarray(own / (1 - np.cumsum(own, 1) + own))


def drawn(rng: np.random.Generator, policy: Array, length: int) -> NDArray[np.int64]:
    """(lists, places): items drawn one after the other without replacement."""
    return np.argsort(-(np.log(policy) + rng.gumbel(size=policy.shape)), 1)[:, :length]


def truth_of(new: Array, worth: Array, length: int) -> float:
    """What the new policy earns: exact for one place, otherwise the mean of 400,000 lists."""
    if length == 1:
        return float((new * worth).sum(1).mean())
    kinds = np.arange(400_000) % KINDS
    items = drawn(np.random.default_rng(0), new[kinds], length)
    return float(np.take_along_axis(worth[kinds], items, 1).sum(1).mean())


def repeat(seed: int, old: Array, new: Array, worth: Array, length: int) -> dict[str, tuple[float, float, float]]:
    """(value, low, high) of each estimate; nothing if they are refused."""
    rng = np.random.default_rng((1, seed))
    kinds = rng.integers(KINDS, size=LISTS)
    items = drawn(rng, old[kinds], length)
    clicks = rng.random(items.shape) < np.take_along_axis(worth[kinds], items, 1)
    place = np.tile(np.arange(length), LISTS)
    shown = ShownItems(
        np.repeat(np.arange(LISTS), length),
        place,
        places(old[kinds], items).ravel(),
        places(new[kinds], items).ravel(),
        clicks.ravel().astype(float),
    )

    def policy(rows: NDArray[np.int64]) -> Array:
        p = new[kinds[rows // length]].copy()
        for j in range(length - 1):
            later = np.flatnonzero(place[rows] > j)
            p[later, items[rows[later] // length, j]] = 0
        return np.asarray(p / p.sum(1, keepdims=True))

    def features(rows: NDArray[np.int64]) -> Array:
        return np.log(new[kinds[rows // length]])[:, :, None]  # what a recommender knows, not the truth

    found = off_policy(shown, *cross_fitted(shown, items.ravel(), policy, features, seed))
    if refusal(found) is not None:
        return {}
    values = {name: v.value for name, v in found.estimates.items()}
    return {k: (v.value, float(v.low or 0.0), float(v.high or 0.0)) for k, v in values.items()}


def main() -> None:
    for length in (1, 2):
        old, new, worth = world(length)
        truth = truth_of(new, worth, length)
        print(f"{REPEATS} repeats of {LISTS:,} lists of {length} of {ITEMS} items; the true value is {truth:.4f}")
        print(f"{'':6} {'inside':>7} {'error':>8} {'deviation':>10} {'width':>7}")
        every = [repeat(seed, old, new, worth, length) for seed in range(REPEATS)]
        runs = [r for r in every if r]
        print(f"refused: {len(every) - len(runs)}")
        for name in runs[0]:
            value, low, high = np.array([r[name] for r in runs]).T
            inside = ((low <= truth) & (truth <= high)).mean()
            print(f"{name:6} {inside:7.1%} {value.mean() - truth:+8.4f} {value.std():10.4f} {(high - low).mean():7.4f}")


BENCHMARKS = (Benchmark("off_policy", (), 5, main),)
