"""Near duplicates among texts, by the n-grams that they share.

Candidate pairs are proposed by a cheap signature and then compared directly, so the reported similarities are exact.
A near duplicate is missed only if its signature differs (the probability is stated).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from afresh.core import NearDuplicate

SHINGLE = 9  # characters of an n-gram
POINTS = 120  # of a signature: BANDS bands of ROWS
BANDS, ROWS = 20, 6
CROWD = 32  # members of a bucket that are compared with all others; later members are compared with these only
MIX = np.uint64(0xBF58476D1CE4E5B9)

Hashes = NDArray[np.uint64]


def near_texts(texts: Sequence[str], threshold: float = 0.8) -> list[NearDuplicate]:
    """Texts whose sets of n-grams have a Jaccard similarity (intersection over union) of at least `threshold`.

    Candidates agree in all ROWS points of at least one of BANDS bands of a min-wise signature (Broder 1997):
    a pair of similarity s is proposed with probability 1 - (1 - s^6)^20, which is 99.8% at 0.8 and 0.1% at 0.2.
    If a bucket holds more than CROWD texts, the later ones are compared with the first CROWD only.
    """
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        hashes = shingles(text)
        if len(hashes):
            bands = signature(hashes).reshape(BANDS, ROWS)
            for b in range(BANDS):
                buckets[b, bands[b].tobytes()].append(i)
    candidates: dict[int, set[int]] = defaultdict(set)
    for members in buckets.values():
        for place, second in enumerate(members):
            candidates[second].update(members[: min(place, CROWD)])

    @lru_cache(maxsize=256)  # holding the sets of all texts would take 8 bytes per character
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


def shingles(text: str) -> Hashes:
    """Sorted distinct 64-bit hashes of all n-grams of SHINGLE characters, ignoring case and amount of white space."""
    normalised = re.sub(r"\s+", " ", text.casefold()).strip()
    points = np.frombuffer(normalised.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if not len(points):
        return np.zeros(0, dtype=np.uint64)
    width = min(SHINGLE, len(points))
    count = len(points) - width + 1
    h = np.zeros(count, dtype=np.uint64)
    for k in range(width):  # products of uint64 wrap around, as a polynomial hash requires
        h = h * np.uint64(0x100000001B3) + points[k : k + count]
    h ^= h >> np.uint64(30)
    h *= MIX
    h ^= h >> np.uint64(29)
    h *= MIX
    return np.unique(h ^ (h >> np.uint64(32)))


def signature(hashes: Hashes) -> Hashes:
    """(POINTS,): for evenly spaced points on the circle of 64-bit values, the next hash in the set.

    The next hash in the union of two sets is equally likely to be any of its members, so two signatures agree at a
    point with a probability equal to the Jaccard similarity: Broder's min-wise property, at the cost of one sort.
    """
    at = (np.arange(POINTS, dtype=np.float64) / POINTS * 2.0**64).astype(np.uint64)
    return hashes[np.searchsorted(hashes, at) % len(hashes)]


def jaccard(a: Hashes, b: Hashes) -> float:
    """Size of the intersection divided by the size of the union, of two sorted arrays of distinct values."""
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)
