"""Memorisation of the training split: nearest neighbours for vectors, verbatim runs for text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from afresh.engine.evaluation.distribution import distances
from afresh.engine.evaluation.estimate import Array, Estimate, share

CHUNK, VALUES = 2048, 1 << 22  # rows that are compared at once, and their numbers, which are then float64
NEARER_THAN = 0.99  # a near copy is nearer to a training item than this share of held-out items
CLOSE, USUAL = 0.2, 0.9  # a close copy is nearer than this share of the distance within which so many held-out ones are


def nearest(x: Array, table: Array) -> Array:
    """Exact distance (N,) of every row of x to the nearest row of `table`; 0 for a copy."""
    best, place = np.full(len(x), np.inf), np.zeros(len(x), np.int64)
    count = min(CHUNK, max(1, VALUES // x.shape[1]))
    for i in range(0, len(x), count):
        rows = slice(i, i + count)
        for j in range(0, len(table), count):
            d = distances(x[rows], table[j : j + count])
            arg = d.argmin(1)
            least = d[np.arange(len(d)), arg]
            better = least < best[rows]
            best[rows] = np.where(better, least, best[rows])
            place[rows] = np.where(better, arg + j, place[rows])
    # distances() expands the square, so that a copy is about 1e-7 away; computed directly, its distance is 0.
    return np.concatenate(
        [
            np.linalg.norm(x[i : i + count].astype(np.float64) - table[place[i : i + count]], axis=1)
            for i in range(0, len(x), count)
        ]
    )


def near_copies(of_samples: Array, of_heldout: Array) -> Estimate:
    """Share of samples that are nearer to a training item than 99% of held-out items.

    Both arguments are distances (N,) from `nearest`. The expectation is 1% for a model of the data's distribution.
    Wilson interval, conditional on the held-out items.
    """
    heldout = np.sort(of_heldout)
    farther = len(heldout) - np.searchsorted(heldout, of_samples, side="right")  # held-out items farther than each
    return share(int((farther >= NEARER_THAN * len(heldout)).sum()), len(of_samples))


def close_copies(of_samples: Array, of_heldout: Array) -> Estimate:
    """Share of samples whose distance to a training item is at most CLOSE of what is usual for held-out items.

    Both arguments are distances (N,) from `nearest`. Usual is the distance that 90% of held-out items do not exceed, so
    that it is not one of near duplicates if fewer than that have one. Compare the share with that of held-out items,
    which is above 0 if the data has near duplicates. Wilson interval, conditional on the held-out items.
    """
    return share(int((of_samples <= CLOSE * np.quantile(of_heldout, USUAL)).sum()), len(of_samples))


def nearest_ratio(of_samples: Array, of_heldout: Array, seed: int, draws: int = 500) -> Estimate:
    """Median nearest-training distance of samples divided by that of held-out items; 1 is ideal, 0 is copying.

    Blurred samples lower it without being copies, since averages are near everything: compare with a blurred real
    control. Percentile bootstrap over both (Efron 1979). Raises ValueError if half of the held-out items are copies.
    """
    bottom = float(np.median(of_heldout))
    if bottom == 0:
        raise ValueError(
            "half of the held-out items are in the training split, so there is no distance to compare with"
        )
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(draws):
        a = np.median(of_samples[generator.integers(0, len(of_samples), len(of_samples))])
        b = np.median(of_heldout[generator.integers(0, len(of_heldout), len(of_heldout))])
        ratios.append(a / max(b, 1e-12))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Estimate(float(np.median(of_samples)) / bottom, float(low), float(high), len(of_samples))


# --------------------------------------------------------------------------- verbatim runs of text

_BASE = 0x9E3779B97F4A7C15  # odd, so invertible modulo 2^64
_BYTE = np.random.default_rng(0).integers(1, 1 << 63, 256, dtype=np.uint64)  # spreads bytes over 64 bits


class WindowHashes:
    """Hashes of all windows of a text, of any length, at the cost of one subtraction each.

    Polynomial hashes modulo 2^64 (Karp and Rabin 1987) as differences of running sums. Two different windows have equal
    hashes with a probability of about 2^-64, which is neglected.
    """

    def __init__(self, text: bytes) -> None:
        values = _BYTE[np.frombuffer(text, np.uint8)]
        self.size = len(text)
        self.inverse = np.cumprod(np.full(self.size, pow(_BASE, -1, 1 << 64), np.uint64))
        self.sums = np.zeros(self.size + 1, np.uint64)
        np.cumsum(values * np.cumprod(np.full(self.size, _BASE, np.uint64)), out=self.sums[1:])

    def of(self, length: int) -> NDArray[np.uint64]:
        """Hashes (size - length + 1,) of the windows of `length` bytes; empty if the text is shorter."""
        if length < 1 or length > self.size:
            return np.zeros(0, np.uint64)
        differences = self.sums[length:] - self.sums[:-length]
        return np.asarray(differences * self.inverse[: self.size - length + 1], np.uint64)


class CopySearch:
    """Finds runs of bytes of other texts in training documents."""

    def __init__(self, documents: Sequence[bytes]) -> None:
        self.windows = WindowHashes(b"\0".join(documents))  # the separator keeps runs within one document

    def contained(self, texts: Sequence[bytes], length: int) -> list[NDArray[np.bool_]]:
        """For every text, a mask of its windows of `length` bytes that occur in a training document."""
        hashes = [WindowHashes(t).of(length) for t in texts]
        table, where = np.unique(np.concatenate(hashes), return_inverse=True)
        occurs = np.zeros(len(table), bool)
        if len(table):
            training = self.windows.of(length)
            place = np.minimum(np.searchsorted(table, training), len(table) - 1)
            occurs[place[table[place] == training]] = True
        ends = np.cumsum([len(h) for h in hashes])
        return np.split(occurs[where], ends[:-1])

    def longest(self, texts: Sequence[bytes]) -> int:
        """Length in bytes of the longest run of any of the texts that occurs verbatim in a training document."""
        low, high = 0, max((len(t) for t in texts), default=0)
        while low < high:  # if a run of some length occurs, so do shorter ones
            middle = (low + high + 1) // 2
            if any(s.any() for s in self.contained(texts, middle)):
                low = middle
            else:
                high = middle - 1
        return low
