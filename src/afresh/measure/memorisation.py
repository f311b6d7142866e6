"""Does a model repeat its training split? Nearest neighbours for vectors, verbatim runs for text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from afresh.measure.distribution import distances
from afresh.measure.estimate import Array, Estimate, share

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

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so invertible modulo 2^64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_BYTE = np.random.default_rng(0).integers(1, 1 << 63, 256, dtype=np.uint64)  # spreads bytes over 64 bits


def windows(text: bytes, length: int) -> NDArray[np.uint64]:
    """Polynomial hashes modulo 2^64 of every window of `length` bytes (Karp and Rabin 1987), all at once.

    Two different windows agree with a chance of about 2^-64, so that equality of hashes is taken for equality.
    """
    n = len(text)
    if n < length:
        return np.zeros(0, np.uint64)
    values = _BYTE[np.frombuffer(text, np.uint8)]
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(n, _BASE, np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * powers)])
        inverses = np.cumprod(np.full(n, _INVERSE, np.uint64))
        return (sums[length:] - sums[:-length]) * inverses[: n - length + 1]


class Source:
    """Training text as sorted hashes of its windows, one array a length, made when first needed."""

    def __init__(self, documents: list[bytes]) -> None:
        self.documents = documents
        self._sorted: dict[int, NDArray[np.uint64]] = {}

    def seen(self, text: bytes, length: int) -> NDArray[np.bool_]:
        """Which windows of `length` bytes of the text occur in one training document."""
        if length not in self._sorted:
            found = [windows(d, length) for d in self.documents]
            self._sorted[length] = np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
        table, asked = self._sorted[length], windows(text, length)
        if len(table) == 0 or len(asked) == 0:
            return np.zeros(len(asked), bool)
        place = np.minimum(np.searchsorted(table, asked), len(table) - 1)
        return table[place] == asked

    def longest(self, text: bytes) -> int:
        """Bytes of the longest run of the text that occurs verbatim in the training text."""
        low, high = 0, len(text)
        while low < high:  # if a run of some length occurs, so do all shorter ones
            middle = (low + high + 1) // 2
            if self.seen(text, middle).any():
                low = middle
            else:
                high = middle - 1
        return low
