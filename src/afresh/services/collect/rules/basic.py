"""What holds for items of every kind."""

from __future__ import annotations

from dataclasses import replace

from afresh.data.files import describes_data
from afresh.services.collect.record import Record
from afresh.services.collect.rules import Rule, Verdict

TEXTS = ("text", "code", "conversation")


def no_text(record: Record) -> Verdict:
    text = record.text or ""
    return record if text.strip() else "it has no characters but white space"


def line_ends(record: Record) -> Verdict:
    text = record.text or ""
    return replace(record, text=text.replace("\r\n", "\n").replace("\r", "\n")) if "\r" in text else record


def describes(record: Record) -> Verdict:
    name = record.where.rpartition(": ")[2]
    return "it describes the data, as its name says" if describes_data(name) else record


RULES = (
    Rule(
        "describes_data",
        "README, LICENSE and SOURCES are about the data.",
        ("text",),
        describes,
    ),
    Rule("line_ends", "Line ends of Windows and of old Macintosh computers become those of Unix.", TEXTS, line_ends),
    Rule("no_text", "A text must have a character that is no white space.", TEXTS, no_text),
)
