"""Characters that are surely broken are mended: none that a person could have typed."""

from __future__ import annotations

import re

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Share, Verdict, rule
from afresh.services.collect.rules.text import readable, rewritten

WRITTEN = ("text", "conversation")
# Not tab, line feed, carriage return and form feed. U+FEFF is a byte order mark, and a joiner of words long ago.
CONTROL = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]|[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff]")


@rule(WRITTEN, needs="ftfy")
def mojibake(record: Record) -> Verdict:
    """Text of UTF-8 that was read as another encoding, as Ã© for é, is mended by ftfy where it is surely so."""
    return record if (record.text or "").isascii() and record.kind == "text" else rewritten(record, _decoded)


def _decoded(text: str) -> str:
    if text.isascii():
        return text
    from ftfy import fix_encoding
    from ftfy.badness import is_bad

    lines = text.split("\n")
    return "\n".join(fix_encoding(x) if not x.isascii() and is_bad(x) else x for x in lines)


@rule(WRITTEN)
def control_characters(record: Record) -> Verdict:
    """Control characters, codes of terminals and byte order marks are removed; tabs and ends of lines stay."""
    return rewritten(record, lambda text: CONTROL.sub("", text) if CONTROL.search(text) else text)


@rule((*WRITTEN, "code"), value=0.01, accepts=Share)
def undecodable(record: Record, value: float) -> Verdict:
    """At most this share of the characters is U+FFFD, which stands for bytes that could not be decoded."""
    text = readable(record)
    count = text.count("\ufffd")
    return f"{count:,} of {len(text):,} characters could not be decoded" if count > value * len(text) else record
