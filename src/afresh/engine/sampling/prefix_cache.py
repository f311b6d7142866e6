"""Prompts whose beginning is known: keys and values of a common prefix are copied instead of computed again.

What is copied is what would be computed, as the engine gives a row the same numbers alone and among others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from afresh.core import Cond

LEAST = 64  # tokens; a shorter prefix is computed as fast as it is copied
MOST = 64  # sequences that have left and are remembered
KEPT_BYTES = 2**28  # of keys and values that an empty batch keeps for the sequences to come


@runtime_checkable
class Slotted(Protocol):
    """A state that keeps a row's keys and values in a slot, also after the row has left (nets.kernels.decode)."""

    k: Tensor
    v: Tensor
    slots: Tensor  # (B,)
    lengths: Tensor  # (B,)
    starts: Tensor  # (B,)

    def extend(self, count: int, last: Collection[int] = ()) -> Any: ...

    def copy_prefix(self, row: int, slot: int, length: int, start: int) -> None: ...

    def select(self, rows: Tensor) -> Any: ...


@dataclass(frozen=True)
class CachedPrefix:
    """Tokens whose keys and values are in a slot, the condition that they were computed under, and the position at
    which the document of the last of them begins."""

    slot: int
    tokens: list[int]
    cond: Cond
    start: int


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of equal tokens at the beginning of two lists."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def equal(a: Cond, b: Cond) -> bool:
    """Whether two conditions of one row are the same."""
    simple = all(c.negative is None and c.toward is None for c in (a, b))
    tensors = ((a.parts, b.parts), (a.present, b.present))
    return simple and all(torch.equal(x[k], y[k]) for x, y in tensors for k in x)


class Prefixes:
    """The prefixes that are in the slots of a state, by slot: those of sequences that have left it."""

    def __init__(self) -> None:
        self.left: dict[int, CachedPrefix] = {}

    def remember(self, state: Slotted, row: int, tokens: Sequence[int], cond: Cond) -> None:
        """A row leaves the state; its slot holds its tokens until another row needs it. They begin at position 0."""
        slot, length = int(state.slots[row]), int(state.lengths[row])
        self.left.pop(slot, None)
        self.left[slot] = CachedPrefix(slot, list(tokens[:length]), cond, int(state.starts[row]))
        while len(self.left) > MOST:
            del self.left[next(iter(self.left))]

    def forget(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self.left.pop(slot, None)

    def longest(
        self, tokens: Sequence[int], cond: Cond, others: Sequence[CachedPrefix]
    ) -> tuple[CachedPrefix, int] | None:
        """Which of the known sequences shares the longest prefix with a prompt, and how many tokens of it; at least one
        token of the prompt is left to be fed."""
        best: tuple[CachedPrefix, int] | None = None
        for known in (*others, *self.left.values()):
            length = min(common(known.tokens, tokens), len(tokens) - 1)
            if length < LEAST or known.start >= length or (best is not None and length <= best[1]):
                continue
            if equal(known.cond, cond):
                best = known, length
        return best
