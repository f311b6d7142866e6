"""A document as its text and what it says of itself."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass

from afresh.data.files import MB, FileError, ZipLimits, check_memory, too_large

EXTRA = "is read with the extra documents: pip install 'afresh[documents]'"
TIMES = 10  # the memory of a parsed document, as a multiple of its size


@dataclass(frozen=True)
class Document:
    """One text. What the document does not say is empty. time: in ISO 8601. language: as "de". author: who wrote it.
    number: of a message in a mailbox, from 1."""

    text: str
    title: str = ""
    time: str = ""
    language: str = ""
    author: str = ""
    number: int = 0


def tidy(text: str) -> str:
    """Without white space at the ends of lines, and with at most one empty line in a row."""
    lines = (line.strip() if not line.startswith(("    ", "\t")) else line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def unpacked(raw: bytes, max_mb: int, limits: ZipLimits = ZipLimits()) -> zipfile.ZipFile:
    """A document that is an archive. Its parts are never longer than it declares, which is limited here.

    Raises FileError if it would unpack to more than `max_mb` MB, to many times its size, or to more than fits.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FileError(f"damaged document: {error}") from None
    size = sum(i.file_size for i in archive.infolist())
    if size > max_mb * MB:
        raise FileError(too_large(size, max_mb))
    if size > limits.ratio_from and size > limits.ratio * len(raw):
        raise FileError(f"it unpacks to {size / max(1, len(raw)):,.0f} times its size: a decompression bomb")
    check_memory(TIMES * max((i.file_size for i in archive.infolist()), default=0))
    return archive
