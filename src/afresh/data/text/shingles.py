"""Hashes of the words of texts, and of runs of words: many texts at once, at tens of megabytes a second.

A word is a run of letters, digits and underscores. Every other sign of ASCII except common punctuation, as + or <,
is a word of its own, so that `a < b` and `a > b` differ; so is each character of a script that is written without
spaces, and of every other script whose characters take three bytes or more in UTF-8. Case, white space, quotation
marks and . , ; : ! ? do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SHINGLE = 5  # words of a run
PIECE = 1 << 18  # bytes that are hashed at a time, so that what is computed with them stays in the cache
BASE = 0x9E3779B97F4A7C15  # of the polynomial; odd, so that it has an inverse modulo 2^64
BETWEEN, SIGN, INSIDE, ALONE = 0, 1, 2, 3


def _classes() -> NDArray[np.uint8]:
    table = np.full(256, INSIDE, np.uint8)
    table[:128] = SIGN
    table[:33] = table[127] = BETWEEN
    table[list(b".,;:!?'\"`")] = BETWEEN
    table[[*range(ord("0"), ord("9") + 1), *range(ord("a"), ord("z") + 1), *range(ord("A"), ord("Z") + 1)]] = INSIDE
    table[ord("_")] = INSIDE
    table[0xE0:] = ALONE  # the first byte of a character of three or more
    return table


CLASSES = _classes()


def _powers(base: int) -> Hashes:
    powers = np.full(PIECE + 1, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


POWERS, INVERSE = _powers(BASE), _powers(pow(BASE, -1, 1 << 64))


def mixed(h: Hashes) -> Hashes:
    """Every bit depends on all bits: the finaliser of SplitMix64 (Steele et al. 2014)."""
    h = h ^ (h >> np.uint64(30))
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return h


def words_of(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """The hashes of the words of all texts one after another, and how many words each text has (n,)."""
    hashes: list[Hashes] = []
    counts = np.zeros(len(texts), np.int64)
    for first, raw, ends in _pieces(texts):
        starts, words = _words(np.frombuffer(raw, np.uint8))
        hashes.append(words)
        place = np.searchsorted(ends, starts, "right")
        counts[first : first + len(ends)] += np.bincount(place, minlength=len(ends))
    return np.concatenate(hashes) if hashes else np.zeros(0, np.uint64), counts


def _pieces(texts: Sequence[str]) -> Iterator[tuple[int, bytes, NDArray[np.int64]]]:
    """(number of the first text, bytes of some texts with a space behind each, where each ends): at most PIECE bytes,
    or a part of one text that is longer, cut at a space if it has one."""
    first, parts, size = 0, list[bytes](), 0
    for number, text in enumerate(texts):
        raw = text.lower().encode("utf-8", "surrogatepass") + b" "
        if parts and size + len(raw) > PIECE:
            yield first, b"".join(parts), np.cumsum([len(p) for p in parts])
            parts, size = [], 0
        if len(raw) > PIECE:
            at = 0
            while at < len(raw):
                end = len(raw) if at + PIECE >= len(raw) else raw.rfind(b" ", at, at + PIECE) + 1
                end = end if end > at else at + PIECE
                yield number, raw[at:end], np.array([end - at])
                at = end
            continue
        if not parts:
            first = number
        parts.append(raw)
        size += len(raw)
    if parts:
        yield first, b"".join(parts), np.cumsum([len(p) for p in parts])


def _words(raw: NDArray[np.uint8]) -> tuple[NDArray[np.int64], Hashes]:
    """Where the words of some bytes start, and the hash of each: of its bytes as the digits of a number to the base
    BASE modulo 2^64, whose differences are taken from one running sum."""
    classes = CLASSES[raw]
    if raw.max(initial=0) >= 0x80:
        _part_at_spaces(raw, classes)
    before = np.empty_like(classes)
    before[0], before[1:] = BETWEEN, classes[:-1]
    starts = np.flatnonzero((classes & 1 == 1) | ((classes == INSIDE) & (before < INSIDE)))
    if not len(starts):
        return starts, np.zeros(0, np.uint64)
    digits = (raw * (classes > 0)).astype(np.uint64)
    digits *= POWERS[: len(raw)]
    return starts, mixed(np.add.reduceat(digits, starts) * INVERSE[starts])


def _part_at_spaces(raw: NDArray[np.uint8], classes: NDArray[np.uint8]) -> None:
    """Let the spaces and quotation marks that are not ASCII separate words: U+2000 to U+207F, U+3000 to U+3002, the
    space that does not break, and « and »."""
    second, third = raw[1:], raw[2:]
    two = (raw[:-1] == 0xC2) & ((second == 0xA0) | (second == 0xAB) | (second == 0xBB))
    three = (raw[:-2] == 0xE2) & (second[:-1] & 0xFE == 0x80)
    three |= (raw[:-2] == 0xE3) & (second[:-1] == 0x80) & (third <= 0x82)
    for starts, width in ((two, 2), (three, 3)):
        at = np.flatnonzero(starts)
        for k in range(width):
            classes[at + k] = BETWEEN


def shingles_of(texts: Sequence[str], width: int = SHINGLE) -> list[Hashes]:
    """For each text the sorted distinct hashes of its runs of `width` words. A text with fewer words, but not none, is
    one run."""
    words, counts = words_of(texts)
    factors = np.array([pow(BASE, 2 * k + 1, 1 << 64) for k in range(width)], np.uint64)
    runs = np.zeros(max(0, len(words) - width + 1), np.uint64)  # also from one text into the next
    for k, factor in enumerate(factors):
        runs += words[k : k + len(runs)] * factor
    runs = mixed(runs)
    out = []
    end = 0
    for count in counts.tolist():
        start, end = end, end + count
        if count >= width:
            found = np.sort(runs[start : end - width + 1])
            out.append(found[np.concatenate([[True], found[1:] != found[:-1]])])
        else:
            whole = (words[start:end] * factors[:count]).sum(dtype=np.uint64)
            out.append(mixed(np.array([whole] if count else [], np.uint64)))
    return out


def shingles(text: str) -> Hashes:
    """Of one text."""
    return shingles_of([text])[0]
