"""Items that are the same, or nearly: texts by the pieces they share, pictures by how brightness changes across them.

Both searches propose pairs by a cheap signature and then compare the items themselves, so what is reported is
exact; a near duplicate is missed only where its signature differs (the chance is stated).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from afresh.core import Item, Sound
from afresh.data.split import Split

SHINGLE = 9  # characters
POINTS = 120  # of a signature: BANDS bands of ROWS
BANDS, ROWS = 20, 6
CROWD = 32  # members of a bucket that are compared with all; later ones only with these
MIX = np.uint64(0xBF58476D1CE4E5B9)

Hashes = NDArray[np.uint64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """Item `second` is like `first`, the earliest item that it is like; likeness 1 = the same.

    So each item is `second` at most once, and their number is how many would go if one of a kind stayed.
    """

    first: int
    second: int
    similarity: float


def exact_duplicates(items: Sequence[Item]) -> list[list[int]]:
    """Groups of two or more indices with the same content, by first occurrence."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        groups[item.digest()].append(i)
    return [g for g in groups.values() if len(g) > 1]


def near_duplicates(items: Sequence[Item]) -> list[Pair]:
    """Items nearly or exactly like an earlier one; texts, sounds and pictures are never paired with one another."""
    texts = [i for i, item in enumerate(items) if isinstance(item.value, str)]
    sounds = [i for i, item in enumerate(items) if isinstance(item.value, Sound)]
    pictures = [i for i, item in enumerate(items) if not isinstance(item.value, str | Sound)]
    found = [(texts, p) for p in near_texts([items[i].value for i in texts])]
    found += [(sounds, p) for p in near_sounds([items[i].value for i in sounds])]
    found += [(pictures, p) for p in near_images([items[i].value for i in pictures])]
    return sorted((Pair(of[p.first], of[p.second], p.similarity) for of, p in found), key=lambda p: (p.first, p.second))


def crossing(parts: Split) -> list[tuple[Item, Item, float]]:
    """(training item, held-out item, likeness) of near duplicates on both sides of a split."""
    items = [*parts.train, *parts.heldout]
    border = len(parts.train)
    return [
        (items[p.first], items[p.second], p.similarity) for p in near_duplicates(items) if p.first < border <= p.second
    ]


# --------------------------------------------------------------------------- texts


def near_texts(texts: Sequence[str], threshold: float = 0.8) -> list[Pair]:
    """Texts whose set of shingles has a Jaccard likeness (shared over all) of at least `threshold` to an earlier one.

    Candidates agree in all ROWS points of at least one of BANDS bands of a min-wise signature (Broder 1997):
    a pair of likeness s is proposed with probability 1 - (1 - s^6)^20, which is 99.8% at 0.8 and 0.1% at 0.2.
    Of more than CROWD texts in one bucket the later ones are compared with the first CROWD only.
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

    @lru_cache(maxsize=256)  # the sets of all texts at once would take 8 bytes a character
    def of(i: int) -> Hashes:
        return shingles(texts[i])

    pairs = []
    for second in sorted(candidates):
        for first in sorted(candidates[second]):
            similarity = jaccard(of(first), of(second))
            if similarity >= threshold:
                pairs.append(Pair(first, second, similarity))
                break
    return pairs


def shingles(text: str) -> Hashes:
    """Sorted distinct 64-bit hashes of all runs of SHINGLE characters, letter case and white space made even."""
    even = re.sub(r"\s+", " ", text.casefold()).strip()
    points = np.frombuffer(even.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if not len(points):
        return np.zeros(0, dtype=np.uint64)
    width = min(SHINGLE, len(points))
    count = len(points) - width + 1
    h = np.zeros(count, dtype=np.uint64)
    for k in range(width):  # products of uint64 wrap, as a polynomial hash wants
        h = h * np.uint64(0x100000001B3) + points[k : k + count]
    h ^= h >> np.uint64(30)
    h *= MIX
    h ^= h >> np.uint64(29)
    h *= MIX
    return np.unique(h ^ (h >> np.uint64(32)))


def signature(hashes: Hashes) -> Hashes:
    """(POINTS,): for each of evenly spaced points of the circle of hashes, the next hash in the set.

    The next hash of a union is equally likely to be any of its members, so two sets agree at a point with a
    probability that is their Jaccard likeness: Broder's min-wise property, at the cost of one sort.
    """
    at = (np.arange(POINTS, dtype=np.float64) / POINTS * 2.0**64).astype(np.uint64)
    return hashes[np.searchsorted(hashes, at) % len(hashes)]


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared over all, of two sorted sets."""
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


# --------------------------------------------------------------------------- pictures

SIDE = 8  # of the difference hash: SIDE x SIDE comparisons along rows and as many along columns
DIFFERENT = 8  # of the 128 comparisons that may differ
LEVELS = 6.0  # mean difference of the small pictures that is allowed, of 255, over red, green and blue
FLAT = 2.0  # levels: a smaller step of brightness is no step
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)
CHUNK = 512


def near_images(pictures: Sequence[Pixels]) -> list[Pair]:
    """Pictures (H, W, C) uint8 that look like an earlier one after shrinking: another size, quality, slight edit.

    Alike are two whose difference hashes (brightness rises, is level or falls from one cell to the next, along
    rows and along columns) differ in at most DIFFERENT of 128 places and whose small pictures differ by at most
    LEVELS on average, colours included. `similarity` is 1 - mean difference / 255. Every pair is compared:
    n^2 / 2 products of 384 numbers.
    """
    if len(pictures) < 2:
        return []
    small = np.stack([_small(p) for p in pictures])  # (N, SIDE + 1, SIDE + 1, 3)
    steps = difference_hash(small @ LUMA).astype(np.float32)  # (N, 128)
    flat = small.reshape(len(small), -1)
    # -1, 0, 1 one-hot, so that one matrix product counts the places that agree.
    hot = np.concatenate([steps > 0, steps < 0, steps == 0], 1).astype(np.float32)
    pairs: list[Pair] = []
    for start in range(0, len(hot), CHUNK):
        rows = hot[start : start + CHUNK]
        agree = rows @ hot[: start + len(rows)].T >= steps.shape[1] - DIFFERENT
        for second in range(start, start + len(rows)):
            pairs += _earliest(flat, np.flatnonzero(agree[second - start, :second]), second)
    return pairs


def _earliest(flat: NDArray[np.float32], candidates: NDArray[np.int64], second: int) -> list[Pair]:
    """The first candidate within LEVELS of `second`; in blocks, for the first is often near the front."""
    for block in range(0, len(candidates), CHUNK):
        some = candidates[block : block + CHUNK]
        distance = np.abs(flat[some] - flat[second]).mean(1)
        near = np.flatnonzero(distance <= LEVELS)
        if len(near):
            return [Pair(int(some[near[0]]), second, 1.0 - float(distance[near[0]]) / 255.0)]
    return []


def difference_hash(small: NDArray[np.float32]) -> NDArray[np.int8]:
    """(N, SIDE + 1, SIDE + 1) brightness to (N, 2 SIDE^2) in {-1, 0, 1}, along rows then along columns."""
    across = np.diff(small, axis=2)[:, :SIDE]
    down = np.diff(small, axis=1)[:, :, :SIDE]
    steps = np.stack([across, down], 1).reshape(len(small), -1)
    return (np.sign(steps) * (np.abs(steps) >= FLAT)).astype(np.int8)


def _small(picture: Any) -> NDArray[np.float32]:
    """Mean colour of (SIDE + 1)^2 cells, RGB."""
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    cells = np.asarray(image.resize((SIDE + 1, SIDE + 1), Image.Resampling.BOX), dtype=np.float32)
    return np.repeat(cells[..., None], 3, axis=-1) if cells.ndim == 2 else cells


# --------------------------------------------------------------------------- sounds

WINDOW = 0.032  # seconds of a spectrum; a quarter of it is the step
CELLS, BANDS_HEARD = 24, 20  # of a fingerprint: times x bands of frequency
LOWEST, HIGHEST = 80.0, 7_000.0  # Hz
DEPTH = 50.0  # dB below the loudest cell: what is lower counts as this low
APART = 2.5  # dB: root mean square difference of two fingerprints that is allowed
OUTSIDE = 3e-3  # share of the energy that lies before what is compared, and behind it
LENGTHS = 0.1  # of the longer one's duration that two may differ by


def near_sounds(sounds: Sequence[Sound]) -> list[Pair]:
    """Sounds that are like an earlier one but for loudness, silence around them, a few milliseconds, or coding.

    Alike are two whose fingerprints differ by at most APART dB and whose durations, silence around them left out, by at
    most LENGTHS. `similarity` is 1 - difference / DEPTH. Every pair is compared: n^2 / 2 products of 480 numbers.

    Measured on 60 spoken digits at 8 kHz: all copies a fifth as loud, 7 ms later or with silence around are found, 93%
    of those through MP3 and 95% through Vorbis; of 2,000 that differ, four speakers' words, 4 are called alike.
    """
    return [Pair(int(near[0]), row, similarity) for row, near, similarity in _near_earlier(sounds)]


def similar_sounds(sounds: Sequence[Sound]) -> list[list[int]]:
    """Sets of two sounds or more: each is like another of its set as `near_sounds` says, and like none outside it."""
    member = np.arange(len(sounds))  # the first of its set
    for row, near, _ in _near_earlier(sounds):
        sets = np.unique(member[near])
        member[np.isin(member, sets)] = sets[0]
        member[row] = sets[0]
    firsts, counts = np.unique(member, return_counts=True)
    return [np.flatnonzero(member == first).tolist() for first in firsts[counts > 1]]


def _near_earlier(sounds: Sequence[Sound]) -> Iterator[tuple[int, NDArray[np.int64], float]]:
    """(place, places of all earlier sounds that it is like, likeness to the first of them), of those that have some."""
    if len(sounds) < 2:
        return
    top = min(HIGHEST, 0.45 * min(s.rate for s in sounds))
    made = [fingerprint(s, top) for s in sounds]
    flat = np.stack([f.ravel() for f, _ in made])  # (N, CELLS * BANDS_HEARD)
    seconds = np.array([d for _, d in made])
    square = np.square(flat).sum(1)
    for start in range(0, len(flat), CHUNK):
        rows = slice(start, start + CHUNK)
        mean = (square[rows, None] + square - 2 * flat[rows] @ flat.T).clip(0) / flat.shape[1]
        longer = np.maximum(seconds[rows, None], seconds)
        close = (mean <= APART**2) & (np.abs(seconds[rows, None] - seconds) <= LENGTHS * longer)
        for row, found in enumerate(close):
            near = np.flatnonzero(found[: start + row])
            if len(near):  # the difference anew: products of float32 leave a rounding
                difference = float(np.square(flat[near[0]] - flat[start + row]).mean()) ** 0.5
                yield start + row, near, 1 - difference / DEPTH


def fingerprint(sound: Sound, top: float) -> tuple[NDArray[np.float32], float]:
    """(CELLS, BANDS_HEARD) of power in dB relative to the loudest cell, in [-DEPTH, 0]; and the seconds that it is of.

    Cells share evenly the time that holds all but OUTSIDE of the energy at either end, bands the frequencies up to
    `top` Hz by their logarithm. Zero throughout for silence.
    """
    mono = sound.samples.mean(1, dtype=np.float64)
    energy = np.square(mono).cumsum()
    start, last = np.searchsorted(energy, np.array([OUTSIDE, 1 - OUTSIDE]) * energy[-1])
    size = max(8, round(WINDOW * sound.rate))
    step = size // 4
    frames = sliding_window_view(np.pad(mono[start : last + 1], (size // 2, size)), size)[::step]
    edges = np.geomspace(min(LOWEST, top / 2), top, BANDS_HEARD + 1) / sound.rate * size  # in bins
    bins = np.arange(size // 2 + 1)
    share = np.minimum(bins + 0.5, edges[1:, None]) - np.maximum(bins - 0.5, edges[:-1, None])  # of a bin in a band
    spectra = (np.fft.rfft(frames[i : i + CHUNK] * np.hanning(size)) for i in range(0, len(frames), CHUNK))
    power = np.concatenate([np.abs(s) ** 2 @ share.clip(0).T for s in spectra])
    running = np.concatenate([np.zeros((1, BANDS_HEARD)), power.cumsum(0)])
    at = np.linspace(0, len(power), CELLS + 1)
    whole = np.minimum(at.astype(int), len(power) - 1)
    cells = np.diff(running[whole] + (at - whole)[:, None] * power[whole], axis=0)
    if not cells.max() > 0:
        return np.zeros(cells.shape, np.float32), 0.0
    decibels = 10 * np.log10(np.maximum(cells / cells.max(), 10 ** (-DEPTH / 10)))
    return decibels.astype(np.float32), (last + 1 - start) / sound.rate
