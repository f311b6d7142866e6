"""Endings of constrained texts: a short way from the text so far to one that matches.

A grammar does not say how many tokens are needed to satisfy it. An ending is therefore searched byte by byte: of the
bytes that may follow, one that closes something is taken, or one after which the text matches, and otherwise the one
that was taken least often, so that no loop is followed for ever. The ending that is found is short, but it need not be
the shortest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

CLOSERS = (b'}]",', b"}],")  # bytes that end something in JSON, outside strings; the second begins no string
LETTER = ord("x")  # may follow in most strings, but nowhere else in JSON
PLAIN = b":5102346789tfnabcdegh.-"  # taken first among bytes that were taken as often
FEW = 64  # bytes that may follow, of which each is tried whether the text matches after it


class Matching(Protocol):
    """The state of a matcher that reads bytes."""

    def may(self) -> Sequence[int]: ...  # bytes that may follow
    def read(self, byte: int) -> None: ...
    def matches(self) -> bool: ...
    def matches_after(self, byte: int) -> bool: ...


def ending(state: Matching, closers: bytes, limit: int) -> bytes | None:
    """Bytes after which the text matches, at most `limit` of them; None if none were found. `state` is advanced."""
    used = Counter(dict.fromkeys(range(128, 256), 4))  # bytes of longer characters come late
    out = bytearray()

    def order(byte: int) -> tuple[int, int, int]:
        first = closing.find(byte)
        if first >= 0:
            return -1, first, byte
        return used[byte], PLAIN.index(byte) if byte in PLAIN else len(PLAIN), byte

    while not state.matches():
        may = state.may()
        if not may or len(out) == limit:
            return None
        closing = b'"' if LETTER in may else closers
        byte = min(may, key=order)
        if byte not in closing and len(may) <= FEW:
            byte = next((b for b in may if state.matches_after(b)), byte)
        used[byte] += 1
        out.append(byte)
        state.read(byte)
    return bytes(out)
