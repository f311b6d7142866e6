"""Plain texts and documents as one item each."""

from __future__ import annotations

from collections.abc import Iterator

from afresh.collect.extract import Extractor, suffix_of
from afresh.collect.record import Found, Record
from afresh.data.files import FileError, decode_text
from afresh.data.text.extract import SUFFIXES, extract
from afresh.data.text.languages import BY_SUFFIX

PLAIN = (".txt", ".md", ".text", ".rst", ".tex")
MAX_MB = 512  # of a document when it is decoded


def plain(source: str, found: Found) -> Iterator[Record]:
    assert isinstance(found.content, bytes)
    kind = "text" if suffix_of(found) in PLAIN else "code"
    yield Record(kind, source, found.where, text=decode_text(found.content), about=found.about)


def document(source: str, found: Found) -> Iterator[Record]:
    assert isinstance(found.content, bytes)
    text = extract(suffix_of(found), found.content, decode_text, MAX_MB)
    if not text.strip():
        raise FileError("a document without text")
    yield Record("text", source, found.where, text=text, about=found.about)


CODE = frozenset(BY_SUFFIX) - {*PLAIN, *SUFFIXES}
EXTRACTORS: dict[str, Extractor] = {
    **dict.fromkeys(sorted(CODE), plain),
    **dict.fromkeys(PLAIN, plain),
    **dict.fromkeys(sorted(SUFFIXES), document),
}
