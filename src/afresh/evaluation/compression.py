"""Sizes of a held-out split under general compressors, in bytes: a reference for bits per byte."""

from __future__ import annotations

import lzma
import zlib

LZMA_CONTEXT = 16_000_000  # the last bytes of the training text, which lzma gets as context
LZMA_PRESET = 9 | lzma.PRESET_EXTREME


def joined(documents: list[bytes]) -> bytes:
    """One text. A zero byte ends every document if there are several, since a model must also predict the ends."""
    return documents[0] if len(documents) == 1 else b"".join(d + b"\0" for d in documents)


def gzip_size(text: bytes) -> int:
    """Size in bytes of a raw deflate stream at level 9: gzip without the 18 bytes of its header and trailer."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return len(packer.compress(text)) + len(packer.flush())


def lzma_size(text: bytes) -> int:
    """Size in bytes of a raw LZMA2 stream, preset 9e, without a container."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": LZMA_PRESET}]
    return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters))


def lzma_after(train: bytes, heldout: bytes) -> int:
    """Bytes that the held-out text adds after the training text: size(train + heldout) - size(train)."""
    context = train[-LZMA_CONTEXT:]
    return lzma_size(context + heldout) - lzma_size(context)
