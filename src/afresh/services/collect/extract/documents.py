"""Plain texts and documents: one item each, but one for each document of a file that separates several, and for each
message of a mailbox."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from afresh.data.files import decode_text
from afresh.data.text.document import Document
from afresh.data.text.encodings import TextDecoder
from afresh.data.text.extract import SUFFIXES, documents
from afresh.data.text.languages import BY_SUFFIX
from afresh.data.text.lists import separated
from afresh.services.collect.extract import Extractor, suffix_of
from afresh.services.collect.record import About, Found, Record, Rejection

PLAIN = (".txt", ".md", ".markdown", ".text", ".rst", ".tex")
MAX_MB = 512  # of a document when it is decoded


def plain(source: str, found: Found) -> Iterator[Record]:
    assert isinstance(found.content, bytes)
    decoder = TextDecoder()
    text, known = decoder.decode(found.where, found.content), found.about
    if decoder.guessed:  # as `train` does; kept with the item, as it is a guess
        known = replace(known, extra={**known.extra, "encoding": next(iter(decoder.guessed))})
    if suffix_of(found) not in PLAIN:
        yield Record("code", source, found.where, text=text, about=known)
        return
    parts = [p for p in separated(text) if p.strip()] or [text]
    for number, part in enumerate(parts, 1):
        where = f"{found.where}, document {number}" if len(parts) > 1 else found.where
        yield Record("text", source, where, text=part, about=known)


def document(source: str, found: Found) -> Iterator[Record | Rejection]:
    assert isinstance(found.content, bytes)
    for read in documents(suffix_of(found), found.content, decode_text, MAX_MB, main=True):
        if isinstance(read, tuple):
            yield Rejection(source, f"{found.where}, message {read[0]}", "extract", "format", read[1])
            continue
        where = f"{found.where}, message {read.number}" if read.number else found.where
        yield Record("text", source, where, text=read.text, about=about(found.about, read), language=read.language)


def about(known: About, read: Document) -> About:
    """What is known, with what the document says of itself: its date counts more than that of its file."""
    return replace(
        known, time=read.time or known.time, title=known.title or read.title, person=known.person or read.author
    )


CODE = frozenset(BY_SUFFIX) - {*PLAIN, *SUFFIXES}
EXTRACTORS: dict[str, Extractor] = {
    **dict.fromkeys(sorted(CODE), plain),
    **dict.fromkeys(PLAIN, plain),
    **dict.fromkeys(sorted(SUFFIXES), document),
}
