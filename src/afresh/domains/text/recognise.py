"""Whether files that can be read as text hold texts: a table does if it has words, and not only numbers and dates."""

from __future__ import annotations

import re
from collections.abc import Sequence

from afresh.core import Sniff, Unsupported
from afresh.core.plural import counted
from afresh.data.files import suffix_of
from afresh.data.tables.roles import are_dates, are_labels, is_prose, lowered, plain_name
from afresh.data.tables.rows import RowTable
from afresh.data.text import chat

SUFFIXES = {  # of files that are not read, by what they hold, and what to do
    "spreadsheets": (
        {".xls", ".ods", ".numbers"},
        "Save it as .xlsx, or a sheet of it as .csv, and give that file",
    ),
    "molecules": (
        {".smi", ".smiles", ".sdf", ".mol2", ".inchi"},
        "To learn the lines of one file as text all the same, give that file, `modality=text` and `data.document=line`",
    ),
    "documents of other programs": (
        {".rtf", ".doc", ".wpd", ".pages"},
        "Save it as .docx, in Word, Pages or LibreOffice, and give that file",
    ),
    "videos": (
        {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"},
        "Save frames as images, or the soundtrack as a sound, and give a folder of those",
    ),
}
CLOCKS = ("time", "timestamp", "date", "datetime", "seconds")  # names of columns of numbers that are times
SURE = 0.95  # of a table of texts
# Plain names of columns by which people and things are told apart. One that only numbers rows says nothing.
KEYS = re.compile(
    r".{2,}(id|nr|no|number|nummer|code|key)|(customer|client|member|student|pupil|patient|employee|sample|invoice|order"
    r"|kunde|schüler|mitglied|probe|rechnung|mitarbeiter|élève|client|échantillon|facture)s?(name)?|e?mail(address)?"
)
AS_TEXT = "To learn one column as text all the same: `modality=text` and `data.text_column=NAME`"
Columns = dict[str, list[str]]  # the values of each column that are not empty, as text


def of_names(names: Sequence[str]) -> Unsupported | None:
    """The kind of most of the files if it is not read, judged by their suffixes."""
    for kind, (suffixes, advice) in SUFFIXES.items():
        theirs = [suffix_of(n) for n in names if suffix_of(n) in suffixes]
        if 2 * len(theirs) > len(names):
            return Unsupported(kind, f"{theirs[0]} files", advice)
    return None


def of_table(table: RowTable) -> Sniff:
    """Whether the first rows of a table are texts or conversations. Those of numbers, with or without times, could be
    read as texts, but nothing useful would be learnt of them."""
    if chat.chat_columns(table.columns):
        return Sniff(SURE, "a table of conversations", columns=2)  # of questions and of answers
    columns = {name: table.texts_of(name) for name in table.columns}
    words = {name: values for name, values in columns.items() if name in table.texts}
    if len(table.rows) > 1 and not any(is_prose(name, values) for name, values in words.items()):
        numbers = [name for name, values in columns.items() if values and name not in words]
        unsupported = _plain(columns, numbers, words) or _series(numbers, words) or _numbers(numbers, words)
        if unsupported is not None:
            return Sniff(0.0, f"looks like {unsupported.kind}", unsupported)
    return Sniff(SURE, "a table of texts")


def _plain(columns: Columns, numbers: Sequence[str], words: Columns) -> Unsupported | None:
    """A table with a row for each customer, sample or invoice: a column names each of them once."""
    key = next((n for n, values in columns.items() if KEYS.fullmatch(plain_name(n)) and _differ(values)), None)
    others = [n for n in (*numbers, *(n for n, values in words.items() if are_dates(values))) if n != key]
    if key is None or len(others) < 2:
        return None
    return Unsupported(
        "plain tables",
        f"a row for each {key!r}, and {len(columns) - 1} columns that say something of it, but no events",
        "To recommend, give a table with a row for each choice: a column of who, one of what, and best one of when. "
        + AS_TEXT,
    )


def _differ(values: Sequence[str]) -> bool:
    return len(set(values)) == len(values) > 1


def _series(numbers: Sequence[str], words: Columns) -> Unsupported | None:
    dates = [name for name, values in words.items() if are_dates(values)]
    dates = dates or [name for name in numbers if lowered(name) in CLOCKS]
    others = [name for name, values in words.items() if name not in dates and not are_labels(values)]
    numbers = [name for name in numbers if name not in dates]
    if not dates or not numbers or others:
        return None
    return Unsupported("time series", f"column {dates[0]} with the dates or times and {_count(numbers)}", AS_TEXT)


def _numbers(numbers: Sequence[str], words: Columns) -> Unsupported | None:
    if not numbers or not all(are_labels(values) for values in words.values()):
        return None
    return Unsupported("tables of numbers", f"{_count(numbers)} and no column of texts", AS_TEXT)


def _count(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"{counted(len(names), 'column')} of numbers: {shown}"
