"""What a source found, as items: by the suffix of its name, or else by its media type and first bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import PurePosixPath

from afresh.core import registry
from afresh.data.files import MB, FileError
from afresh.data.limits import Limits, Meter, parsing
from afresh.services.collect.record import Found, Record, Rejection

FORMATS = ("documents", "media")  # files in this folder, each with EXTRACTORS: suffix -> extractor

A_FILE = Limits(bytes=1024 * MB, items=200_000, seconds=600)  # of what is made of one

# (source, what was found) -> its items, and those that cannot be used. Raises FileError if nothing can.
Extractor = Callable[[str, Found], Iterator[Record | Rejection]]


def extractors() -> dict[str, Extractor]:
    """Every extractor by the suffix that it reads (lower case, with the dot)."""
    own = [import_module(f"afresh.services.collect.extract.{name}").EXTRACTORS for name in FORMATS]
    return {suffix: e for mapping in (*own, *registry.extractors()) for suffix, e in mapping.items()}


def extract(source: str, found: Found, known: dict[str, Extractor]) -> list[Record | Rejection]:
    """The items of what was found, and why others or all of it cannot be used."""
    if isinstance(found.content, str):
        return [Record(found.kind or "text", source, found.where, text=found.content, about=found.about)]
    suffix = suffix_of(found)
    if suffix not in known:
        reason = (
            f"no text, image, sound or score that is read ({suffix or found.media_type or 'no suffix'}). Convert it to "
            f"a format that is, as {'.docx' if suffix in OFFICE else '.txt, .pdf, .png, .wav or .mid'}"
        )
        return [Rejection(source, found.where, "extract", "format", reason)]
    items: list[Record | Rejection] = []
    meter = Meter(A_FILE)
    try:
        with parsing(f"{suffix} file"):
            for item in meter.each(known[suffix](source, found), size):
                items.append(item)
    except FileError as error:
        items.append(Rejection(source, found.where, "extract", "format", str(error)))
    return items


OFFICE = frozenset({".rtf", ".doc", ".wpd", ".pages"})  # which Word, Pages and LibreOffice save as .docx


def size(item: Record | Rejection) -> int:
    return item.size if isinstance(item, Record) else len(item.reason)


TYPES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "application/pdf": ".pdf",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/flac": ".flac",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
}
MAGIC = {b"%PDF": ".pdf", b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"fLaC": ".flac"}


def suffix_of(found: Found) -> str:
    """What the content is. The first bytes count more than the name, and this more than the stated type."""
    assert isinstance(found.content, bytes)
    magic = next((s for start, s in MAGIC.items() if found.content.startswith(start)), None)
    named = PurePosixPath(found.name).suffix.lower()
    return magic or named or TYPES.get(found.media_type.partition(";")[0].strip().lower(), "")
