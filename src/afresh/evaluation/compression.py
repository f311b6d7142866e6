"""What general compressors make of a held-out split, in bytes: the yardstick of bits per byte."""

from __future__ import annotations

import lzma
import zlib

LZMA_CONTEXT = 16_000_000  # bytes of training text, from its end, that lzma is given as context
LZMA_PRESET = 9 | lzma.PRESET_EXTREME


def joined(documents: list[bytes]) -> bytes:
    """One text; a zero byte ends every document when there are several, as a model must also say where they end."""
    return documents[0] if len(documents) == 1 else b"".join(d + b"\0" for d in documents)


def gzip_size(text: bytes) -> int:
    """Bytes of a raw deflate stream at level 9: gzip without its header of 18 bytes, in the compressor's favour."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return len(packer.compress(text)) + len(packer.flush())


def lzma_size(text: bytes) -> int:
    """Bytes of a raw LZMA2 stream, preset 9e, with no container."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": LZMA_PRESET}]
    return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters))


def lzma_after(train: bytes, heldout: bytes) -> int:
    """Bytes that the held-out text adds to the training text: size(train + heldout) - size(train)."""
    context = train[-LZMA_CONTEXT:]
    return lzma_size(context + heldout) - lzma_size(context)
