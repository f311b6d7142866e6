"""Texts in the pieces in which tokenizers take them, and the alphabet of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError

LEARN_FROM = 24_000_000  # bytes from which pieces are learnt at most: more changes few of them
PIECE = 1 << 18  # characters handed to the library at once
GROUP = 1 << 22  # characters of a batch of pieces, or of a block of characters
CUT = re.compile(r"[ \n](?=[A-Za-z])")


def byte_names() -> list[str]:
    """How byte-level BPE writes byte 0 ... 255: itself where printable, else from U+0100 on (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def spell(name: str, by_byte: bool) -> bytes:
    """UTF-8 of a piece by its name, in GPT-2's alphabet of bytes or in SentencePiece's (▁ for a space, <0x0A>)."""
    if by_byte:
        table = _values()
        return bytes(table[c] for c in name) if all(c in table for c in name) else name.encode()
    if found := re.fullmatch(r"<0x([0-9A-F]{2})>", name):
        return bytes([int(found[1], 16)])
    return name.replace("\u2581", " ").encode()


@cache
def _values() -> dict[str, int]:
    return {name: value for value, name in enumerate(byte_names())}


def utf8(text: str) -> bytes:
    """Raises UserError for a lone surrogate, with its place."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start:,}: "
            "that is half a character. Write the text as valid UTF-8."
        ) from None


def code_points(text: str) -> Iterator[NDArray[np.uint32]]:
    """Code points, a block at a time. Raises UserError like `utf8`."""
    for start in range(0, len(text), GROUP):
        try:
            yield np.frombuffer(text[start : start + GROUP].encode("utf-32-le"), dtype="<u4")
        except UnicodeEncodeError:
            utf8(text)  # says where
            raise


def cut(text: str) -> Iterator[str]:
    """A long text in pieces that encode as the whole does.

    They are cut before a space or line end with a letter after it: there the library's own rule parts the text
    as well. Where no such place comes in time the cut is made anyway, which costs a token or two.
    """
    start = 0
    while len(text) - start > 2 * PIECE:
        place = CUT.search(text, start + PIECE, start + 2 * PIECE)
        end = place.start() if place else start + 2 * PIECE
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def sample(texts: Sequence[str]) -> Iterator[str]:
    """All pieces, or every n-th of them, to about LEARN_FROM characters."""
    total = sum(map(len, texts))
    every = max(1, round(total / LEARN_FROM))
    seen = 0
    for text in texts:
        for start in range(0, len(text), PIECE // 16):
            if seen % every == 0:
                yield text[start : start + PIECE // 16]
            seen += 1
