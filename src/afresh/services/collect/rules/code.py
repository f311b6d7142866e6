"""Source files that nobody wrote by hand, or that are not the project's own."""

from __future__ import annotations

from pathlib import PurePosixPath

from afresh.data.text.languages import (
    LONG_LINE,
    MEAN_LINE,
    PARSERS,
    exclusion_reason,
    generated_statement,
    language_of,
)
from afresh.services.collect.record import Record
from afresh.services.collect.rules import Rule, Verdict
from afresh.services.collect.rules.values import Count


def file_name(record: Record) -> str:
    """The path of the file, in an archive too."""
    return record.where.rpartition(": ")[2]


def vendored(record: Record) -> Verdict:
    path = PurePosixPath(file_name(record))
    for folder in path.parts[:-1]:
        if reason := exclusion_reason(folder, folder=True):
            return f"{folder}: {reason}"
    reason = exclusion_reason(path.name, folder=False)
    return reason if reason and language_of(path.name) else record


def generated(record: Record) -> Verdict:
    statement = generated_statement(record.text or "")
    return f"it says {statement!r}" if statement else record


def long_lines(record: Record, value: int) -> Verdict:
    longest = max(map(len, (record.text or "").split("\n")))
    return f"a line of {longest:,} characters" if longest > value else record


def minified(record: Record, value: int) -> Verdict:
    text = record.text or ""
    mean = len(text) / (text.count("\n") + 1)
    return f"{mean:,.0f} characters a line" if len(text) > 10 * value and mean > value else record


def parses(record: Record) -> Verdict:
    parser = PARSERS.get(language_of(file_name(record)) or "")
    return record if parser is None or parser(record.text or "") else "it cannot be parsed"


RULES = (
    Rule(
        "vendored",
        "Files of folders such as node_modules and vendor, licences, lock files, and files whose name says that they "
        "are minified or generated are left out.",
        ("code",),
        vendored,
    ),
    Rule(
        "generated",
        "Files whose first 20 lines say that they were generated are left out.",
        ("code",),
        generated,
    ),
    Rule(
        "long_lines",
        "No line has more characters than this: longer ones were not written by hand.",
        ("code",),
        long_lines,
        value=LONG_LINE,
        accepts=Count,
    ),
    Rule(
        "minified",
        "The lines of a file have at most this many characters on average; files with fewer than ten times as many "
        "characters are not judged.",
        ("code",),
        minified,
        value=MEAN_LINE,
        accepts=Count,
    ),
    Rule(
        "parses",
        "Python and JSON can be parsed, by the grammar of the Python that runs afresh; other languages are not judged.",
        ("code",),
        parses,
        False,
    ),
)
