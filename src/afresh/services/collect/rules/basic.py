"""What holds for items of every kind."""

from __future__ import annotations

from dataclasses import replace

from afresh.data.files import describes_data as describes
from afresh.services.collect.record import Record
from afresh.services.collect.rules import Verdict, rule

TEXTS = ("text", "code", "conversation")


@rule(("text",))
def describes_data(record: Record) -> Verdict:
    """README, LICENSE and SOURCES are about the data."""
    name = record.where.rpartition(": ")[2]
    return "it describes the data, as its name says" if describes(name) else record


@rule(TEXTS)
def line_ends(record: Record) -> Verdict:
    """Line ends of Windows and of old Macintosh computers become those of Unix."""
    text = record.text or ""
    return replace(record, text=text.replace("\r\n", "\n").replace("\r", "\n")) if "\r" in text else record


@rule(TEXTS)
def no_text(record: Record) -> Verdict:
    """A text must have a character that is no white space."""
    text = record.text or ""
    return record if text.strip() else "it has no characters but white space"
