"""An interpolated n-gram model of bytes, by which samples of two families are compared that neither optimises.

Modified Kneser-Ney smoothing (Chen and Goodman 1998, section 3; eqs. 17-26 of the report), down to the uniform
distribution over 256 bytes, so that no byte has probability zero. Everything is sorted arrays of grams packed
into int64, eight bits a byte, so that a megabyte is learnt and scored in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.engine.evaluation.estimate import Array

CHUNK = 1 << 20
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """p(s | c) = alpha[c s] + gamma[c] p(s | c without its first byte), for contexts c of one length."""

    grams: Ints  # (G,) context and byte, sorted
    alpha: Array  # (G,)
    contexts: Ints  # (C,) sorted
    gamma: Array  # (C,)


@dataclass(frozen=True)
class ByteNgram:
    """`orders[k]` has contexts of k bytes."""

    orders: tuple[Order, ...]

    @property
    def order(self) -> int:
        return len(self.orders)

    def probabilities(self, text: bytes, before: bytes = b"") -> Array:
        """p(text[i] | the order - 1 bytes before it), (len(text),); zero bytes stand before the beginning."""
        reach = self.order - 1
        stream = np.frombuffer((b"\0" * reach + before)[-reach:] + text if reach else text, np.uint8)
        out = np.empty(len(text))
        for first in range(0, len(text), CHUNK):
            part = stream[first : first + CHUNK + reach]
            packed = _packed(part, self.order)  # (n,) the last `order` bytes up to each
            p = np.full(len(packed), 1 / 256)
            for k, level in enumerate(self.orders):
                p = _interpolate(level, packed & ((1 << 8 * (k + 1)) - 1), p)
            out[first : first + len(p)] = p
        return out


def train_ngram(text: bytes, order: int = 6) -> ByteNgram:
    """A model of contexts of up to order - 1 bytes, order at most 7 (a gram must fit into 63 bits)."""
    if not 1 <= order <= 7:
        raise ValueError(f"the order of a byte n-gram model is 1 to 7, not {order}")
    if not text:
        raise ValueError("an n-gram model needs at least one byte of text")
    stream = np.frombuffer(b"\0" * (order - 1) + text, np.uint8)
    grams, counts = np.unique(_packed(stream, order), return_counts=True)
    levels = [_level(grams, counts)]
    for k in range(order - 1, 0, -1):
        # Continuation counts: in how many different ways a shorter gram is preceded.
        grams, counts = np.unique(grams & ((1 << 8 * k) - 1), return_counts=True)
        levels.append(_level(grams, counts))
    return ByteNgram(tuple(reversed(levels)))


def _packed(stream: NDArray[np.uint8], k: int) -> Ints:
    out = np.zeros(len(stream) - k + 1, np.int64)
    for i in range(k):
        out = (out << 8) | stream[i : i + len(out)]
    return out


def _discounts(counts: Ints) -> Array:
    """D1, D2 and D3+ from the counts of counts (Chen and Goodman 1998, eq. 26), kept within [0, count]."""
    n1, n2, n3, n4 = (max(int((counts == c).sum()), 1) for c in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    return np.clip([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3], 0.05, [0.95, 1.95, 2.95])


def _level(grams: Ints, counts: Ints) -> Order:
    contexts, start, size = np.unique(grams >> 8, return_index=True, return_counts=True)
    discount = _discounts(counts)[np.minimum(counts, 3) - 1]
    total = np.add.reduceat(counts, start).astype(np.float64)
    alpha = (counts - discount) / np.repeat(total, size)
    gamma = np.add.reduceat(discount, start) / total
    return Order(grams, alpha, contexts, gamma)


def _find(table: Ints, asked: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    place = np.minimum(np.searchsorted(table, asked), len(table) - 1)
    return place, table[place] == asked


def _interpolate(level: Order, grams: Ints, lower: Array) -> Array:
    at, known = _find(level.contexts, grams >> 8)
    gram, seen = _find(level.grams, grams)
    return np.where(known, np.where(seen, level.alpha[gram], 0.0) + level.gamma[at] * lower, lower)
