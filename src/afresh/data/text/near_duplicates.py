"""Near duplicates among texts, by the runs of words that they share.

Candidate pairs are proposed by a cheap signature and then compared directly, so the reported similarities are exact.
A near duplicate is missed only if its signature differs (the probability is stated).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from afresh.core import NearDuplicate
from afresh.data.text.shingles import BASE, Hashes, mixed, shingles, shingles_of

THRESHOLD = 0.8  # the Jaccard similarity from which texts are near duplicates
BANDS, ROWS = 20, 6
POINTS = BANDS * ROWS  # of a signature
CROWD = 32  # members of a bucket that are compared with all others; later members are compared with these only
TOGETHER = 256  # texts that are hashed at a time
STEPS = (np.arange(POINTS, dtype=np.float64) / POINTS * 2.0**64).astype(np.uint64)
FACTORS = np.array([pow(BASE, 2 * k + 1, 1 << 64) for k in range(ROWS)], np.uint64)


def near_texts(texts: Sequence[str], threshold: float = THRESHOLD) -> list[NearDuplicate]:
    """Texts whose sets of shingles have a Jaccard similarity (intersection over union) of at least `threshold`.

    Candidates agree in at least one of BANDS bands of ROWS points of a min-wise signature (Broder 1997): a pair of
    similarity s is proposed with probability 1 - (1 - s^6)^20, which is 99.8% at 0.8 and 0.1% at 0.2.
    If a bucket holds more than CROWD texts, the later ones are compared with the first CROWD only.
    """
    candidates: dict[int, set[int]] = defaultdict(set)
    if texts:
        bands = np.concatenate([bands_of(texts[i : i + TOGETHER]) for i in range(0, len(texts), TOGETHER)])
        for members in buckets(bands):
            for place, second in enumerate(members):
                candidates[second].update(members[: min(place, CROWD)])

    @lru_cache(maxsize=256)  # holding the sets of all texts would take more memory than the texts
    def of(i: int) -> Hashes:
        return shingles(texts[i])

    pairs = []
    for second in sorted(candidates):
        for first in sorted(candidates[second]):
            similarity = jaccard(of(first), of(second))
            if similarity >= threshold:
                pairs.append(NearDuplicate(first, second, similarity))
                break
    return pairs


def buckets(bands: Hashes) -> Iterator[list[int]]:
    """The texts, at least two and in order, that have a band (n, BANDS) in common."""
    for column in bands.T:
        order = np.argsort(column, kind="stable")
        values = column[order]
        starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
        ends = np.append(starts[1:], len(values))
        several = (ends - starts > 1) & (values[starts] != 0)
        for start, end in zip(starts[several], ends[several], strict=True):
            yield order[start:end].tolist()


def bands_of(texts: Sequence[str]) -> Hashes:
    """(n, BANDS): near duplicates have one in common, in its place. Zeros for a text without words."""
    every = shingles_of(texts)
    bands = np.zeros((len(texts), BANDS), np.uint64)
    for row, hashes in zip(bands, every, strict=True):
        if len(hashes):
            row[:] = (signature(hashes).reshape(BANDS, ROWS) * FACTORS).sum(1, dtype=np.uint64)
    found = bands != 0
    return np.where(found, mixed(bands), bands)


def signature(hashes: Hashes) -> Hashes:
    """(POINTS,): for evenly spaced points on the circle of 64-bit values, the next hash in the set.

    The next hash in the union of two sets is equally likely to be any of its members, so two signatures agree at a
    point with a probability equal to the Jaccard similarity: Broder's min-wise property, at the cost of one sort.
    """
    return hashes[np.searchsorted(hashes, STEPS) % len(hashes)]


def jaccard(a: Hashes, b: Hashes) -> float:
    """Size of the intersection divided by the size of the union, of two sorted arrays of distinct values."""
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)
