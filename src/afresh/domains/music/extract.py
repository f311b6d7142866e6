"""Scores of music: one item each, whose content stays the bytes of its file."""

from __future__ import annotations

from collections.abc import Iterator

from afresh.core import UserError
from afresh.data.files import FileError
from afresh.domains.music.files import NOTES, read_pieces
from afresh.services.collect.extract import Extractor, suffix_of
from afresh.services.collect.record import Found, Record


def score(source: str, found: Found) -> Iterator[Record]:
    """Raises FileError for a file in which there is no piece, and if the package that reads it is not installed."""
    assert isinstance(found.content, bytes)
    suffix = suffix_of(found)
    try:
        (read,) = read_pieces([(f"score{suffix}", found.content)])
    except UserError as error:
        raise FileError(str(error)) from None
    if isinstance(read, FileError):
        raise read
    yield Record("music", source, found.where, content=found.content, suffix=suffix, about=found.about)


EXTRACTORS: dict[str, Extractor] = dict.fromkeys(sorted(NOTES), score)
