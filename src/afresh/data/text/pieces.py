"""Texts in the pieces in which they are passed to tokenizers, and the byte alphabets of tokenizers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError

LEARN_FROM = 24_000_000  # characters from which a vocabulary is learnt; more would change few entries
PIECE = 1 << 18  # characters passed to the library at once
GROUP = 1 << 22  # characters of a batch of pieces, or of a block of code points
CUT = re.compile(r"[ \n](?=[A-Za-z])")


def byte_names() -> list[str]:
    """The characters that stand for bytes 0 ... 255 in byte-level BPE (GPT-2's table): printable bytes are themselves,
    others are numbered from U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def spell(name: str, by_byte: bool) -> bytes:
    """The UTF-8 bytes of a vocabulary entry, written in GPT-2's byte alphabet (`by_byte`) or in SentencePiece's (▁ for
    a space, <0x0A> for a byte)."""
    if by_byte:
        table = _values()
        return bytes(table[c] for c in name) if all(c in table for c in name) else name.encode()
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", name):
        return bytes([int(byte[1], 16)])
    return name.replace("\u2581", " ").encode()


@cache
def _values() -> dict[str, int]:
    return {name: value for value, name in enumerate(byte_names())}


def utf8(text: str) -> bytes:
    """The text in UTF-8. Raises UserError for a lone surrogate, with its position."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start:,}: "
            "this is half a character. Write the text as valid UTF-8."
        ) from None


def code_points(text: str) -> Iterator[NDArray[np.uint32]]:
    """The code points of a text in blocks. Raises UserError like `utf8`."""
    for start in range(0, len(text), GROUP):
        try:
            yield np.frombuffer(text[start : start + GROUP].encode("utf-32-le"), dtype="<u4")
        except UnicodeEncodeError:
            utf8(text)  # raises UserError with the position
            raise


def cut(text: str) -> Iterator[str]:
    """Divide a long text into pieces whose encodings add up to that of the text.

    It is divided before a space or line end that is followed by a letter, where the library's own rule divides it as
    well. If there is no such position in time it is divided anyway, at the cost of one or two tokens.
    """
    start = 0
    while len(text) - start > 2 * PIECE:
        match = CUT.search(text, start + PIECE, start + 2 * PIECE)
        end = match.start() if match else start + 2 * PIECE
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def sample(texts: Sequence[str]) -> Iterator[str]:
    """All pieces of the texts, or evenly spaced ones with about LEARN_FROM characters together."""
    total = sum(map(len, texts))
    every = max(1, round(total / LEARN_FROM))
    seen = 0
    for text in texts:
        for start in range(0, len(text), PIECE // 16):
            if seen % every == 0:
                yield text[start : start + PIECE // 16]
            seen += 1
