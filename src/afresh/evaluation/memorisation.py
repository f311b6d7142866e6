"""Does a model repeat its training split? Nearest neighbours for vectors, verbatim runs for text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from afresh.evaluation.distribution import distances
from afresh.evaluation.estimate import Array, Estimate, share

CHUNK = 2048
NEARER_THAN = 0.99  # a near copy is nearer to a training item than this share of held-out items


def nearest(x: Array, gallery: Array) -> Array:
    """Distance (N,) of every row to the nearest row of the gallery, exact (0 for a copy)."""
    best, place = np.full(len(x), np.inf), np.zeros(len(x), np.int64)
    for i in range(0, len(x), CHUNK):
        rows = slice(i, i + CHUNK)
        for j in range(0, len(gallery), CHUNK):
            d = distances(x[rows], gallery[j : j + CHUNK])
            arg = d.argmin(1)
            found = d[np.arange(len(d)), arg]
            better = found < best[rows]
            best[rows] = np.where(better, found, best[rows])
            place[rows] = np.where(better, arg + j, place[rows])
    # distances() expands the square, which leaves a copy about 1e-7 away; measured again, it is at 0.
    return np.concatenate(
        [
            np.linalg.norm(x[i : i + CHUNK].astype(np.float64) - gallery[place[i : i + CHUNK]], axis=1)
            for i in range(0, len(x), CHUNK)
        ]
    )


def near_copies(of_samples: Array, of_heldout: Array) -> Estimate:
    """Share of samples nearer to a training item than 99% of held-out items are.

    Both (N,) from `nearest`. A model that draws from the data's distribution gets 1% in expectation. Wilson
    interval, conditional on the held-out items.
    """
    held = np.sort(of_heldout)
    farther = len(held) - np.searchsorted(held, of_samples, side="right")  # held-out items farther than each
    return share(int((farther >= NEARER_THAN * len(held)).sum()), len(of_samples))


def nearest_ratio(of_samples: Array, of_heldout: Array, seed: int, draws: int = 500) -> Estimate:
    """Median nearest-training distance of samples over that of held-out items; near 1 is right, 0 is copying.

    Blurred samples lower it without copying, since averages are near everything: see it beside a blurred real
    control. Percentile bootstrap over both (Efron 1979).
    """
    bottom = float(np.median(of_heldout))
    if bottom == 0:
        raise ValueError("half of the held-out items are in the training split: no distance to compare with")
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        a = np.median(of_samples[generator.integers(0, len(of_samples), len(of_samples))])
        b = np.median(of_heldout[generator.integers(0, len(of_heldout), len(of_heldout))])
        found.append(a / max(b, 1e-12))
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(float(np.median(of_samples)) / bottom, float(low), float(high), len(of_samples))


# --------------------------------------------------------------------------- verbatim runs of text

_BASE = 0x9E3779B97F4A7C15  # odd, so invertible modulo 2^64
_BYTE = np.random.default_rng(0).integers(1, 1 << 63, 256, dtype=np.uint64)  # spreads bytes over 64 bits


class Windows:
    """Hashes of every window of a text, of any length, at the cost of a subtraction each.

    Polynomial hashes modulo 2^64 (Karp and Rabin 1987) as differences of running sums. Two different windows
    agree with a chance of about 2^-64, so that equality of hashes is taken for equality.
    """

    def __init__(self, text: bytes) -> None:
        values = _BYTE[np.frombuffer(text, np.uint8)]
        self.size = len(text)
        self.inverse = np.cumprod(np.full(self.size, pow(_BASE, -1, 1 << 64), np.uint64))
        self.sums = np.zeros(self.size + 1, np.uint64)
        np.cumsum(values * np.cumprod(np.full(self.size, _BASE, np.uint64)), out=self.sums[1:])

    def of(self, length: int) -> NDArray[np.uint64]:
        """(size - length + 1,), or none."""
        if length < 1 or length > self.size:
            return np.zeros(0, np.uint64)
        differences = self.sums[length:] - self.sums[:-length]
        return np.asarray(differences * self.inverse[: self.size - length + 1], np.uint64)


class Source:
    """Training documents in which runs of bytes are looked up."""

    def __init__(self, documents: Sequence[bytes]) -> None:
        self.windows = Windows(b"\0".join(documents))  # no text runs on from one document to the next

    def seen(self, texts: Sequence[bytes], length: int) -> list[NDArray[np.bool_]]:
        """For every text, which of its windows of `length` bytes occur in a training document."""
        hashes = [Windows(t).of(length) for t in texts]
        table, where = np.unique(np.concatenate(hashes), return_inverse=True)
        found = np.zeros(len(table), bool)
        if len(table):
            asked = self.windows.of(length)
            place = np.minimum(np.searchsorted(table, asked), len(table) - 1)
            found[place[table[place] == asked]] = True
        ends = np.cumsum([len(h) for h in hashes])
        return np.split(found[where], ends[:-1])

    def longest(self, texts: Sequence[bytes]) -> int:
        """Bytes of the longest run of any of the texts that occurs verbatim in a training document."""
        low, high = 0, max((len(t) for t in texts), default=0)
        while low < high:  # if a run of some length occurs, so do all shorter ones
            middle = (low + high + 1) // 2
            if any(s.any() for s in self.seen(texts, middle)):
                low = middle
            else:
                high = middle - 1
        return low
