"""Source files that were generated, or that are not the project's own."""

from __future__ import annotations

from pathlib import PurePosixPath

from afresh.data.text.languages import LONG_LINE, MEAN_LINE, PARSERS, exclusion_reason, generated_statement, language_of
from afresh.services.collect.record import Record
from afresh.services.collect.rules import Count, Verdict, rule


def file_name(record: Record) -> str:
    """The path of the file, in an archive too."""
    return record.where.rpartition(": ")[2]


@rule(("code",))
def vendored(record: Record) -> Verdict:
    """Files of folders such as node_modules and vendor, licences, lock files, and files whose name says that they
    are minified or generated are left out."""
    path = PurePosixPath(file_name(record))
    for folder in path.parts[:-1]:
        if reason := exclusion_reason(folder, folder=True):
            return f"{folder}: {reason}"
    reason = exclusion_reason(path.name, folder=False)
    return reason if reason and language_of(path.name) else record


@rule(("code",))
def generated(record: Record) -> Verdict:
    """Files whose first 20 lines say that they were generated are left out."""
    statement = generated_statement(record.text or "")
    return f"it says {statement!r}" if statement else record


@rule(("code",), value=LONG_LINE, accepts=Count)
def long_lines(record: Record, value: int) -> Verdict:
    """No line has more characters than this: longer ones were not written by hand."""
    longest = max(map(len, (record.text or "").split("\n")))
    return f"a line of {longest:,} characters" if longest > value else record


@rule(("code",), value=MEAN_LINE, accepts=Count)
def minified(record: Record, value: int) -> Verdict:
    """The lines of a file have at most this many characters on average; files with fewer than ten times as many
    characters are not judged."""
    text = record.text or ""
    mean = len(text) / (text.count("\n") + 1)
    return f"{mean:,.0f} characters a line" if len(text) > 10 * value and mean > value else record


@rule(("code",), on=False)
def parses(record: Record) -> Verdict:
    """Python and JSON can be parsed, by the grammar of the Python that runs afresh; other languages are not judged."""
    parser = PARSERS.get(language_of(file_name(record)) or "")
    return record if parser is None or parser(record.text or "") else "it cannot be parsed"
