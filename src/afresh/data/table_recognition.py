"""Kinds of data that are recognised but not learnt yet, so that they are refused by their name and not read as text.

Each recogniser looks at names of files, or at the first rows of a table, and returns what it saw. A column of prose
makes any table one of texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from afresh.core import Unsupported
from afresh.core.plural import counted
from afresh.data.tables.roles import are_dates, are_labels, is_prose, share
from afresh.data.tables.rows import Table
from afresh.data.text import chat
from afresh.domains.exercises.columns import is_log as is_log_of_answers
from afresh.domains.interactions.columns import is_log

SUFFIXES = {  # by kind: suffixes of files that are not read, and what to do
    "spreadsheets": (
        {".xlsx", ".xlsm", ".xls", ".ods", ".numbers"},
        "If a sheet contains texts, save it as .csv and give that file",
    ),
    "molecules": (
        {".smi", ".smiles", ".sdf", ".mol2", ".inchi"},
        "To learn the lines of one file as text all the same, give that file, `modality=text` and `data.document=line`",
    ),
    "videos": (
        {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"},
        "Save frames as images, or the soundtrack as a sound, and give a folder of those",
    ),
}
AS_TEXT = "To learn one column as text all the same: `modality=text` and `data.text_column=NAME`"
MOLECULE = re.compile(r"(?=.*[A-Za-z])(\[[^\]\s]{1,20}\]|Br|Cl|[BCNOPSFIbcnops]|[-=#$:/\\.()]|%\d\d|\d)+")  # SMILES
BONDED = re.compile(r"[=#()\[\]\d]")  # what most molecules have and words have not
LINES = 20  # fewer lines are not judged
ROWS = 500  # of a table, which are looked at


def of_names(names: Sequence[str]) -> Unsupported | None:
    """The kind of most of the files, judged by their suffixes."""
    for kind, (suffixes, advice) in SUFFIXES.items():
        found = [n for n in names if PurePosixPath(n.lower().removesuffix(".gz")).suffix in suffixes]
        if 2 * len(found) > len(names):
            return Unsupported(kind, f"{PurePosixPath(found[0].lower().removesuffix('.gz')).suffix} files", advice)
    return None


def of_lines(text: str) -> Unsupported | None:
    """Molecules, if that is what the lines of a text are."""
    lines = [line.strip() for line in text.split("\n") if line.strip()][:ROWS]
    if len(lines) < LINES or not are_molecules(lines):
        return None
    advice = "To learn its lines as text all the same: `modality=text` and `data.document=line`"
    return Unsupported("molecules", "its lines are SMILES", advice)


def of_table(table: Table) -> Unsupported | None:
    """The kind of a table without prose."""
    if is_log_of_answers([row for _, row in table.rows], table.columns):
        return Unsupported("logs of answers to exercises", f"columns {', '.join(table.columns)}", AS_TEXT)
    columns = {name: _values(table, name) for name in table.columns}
    words = {name: values for name, values in columns.items() if name in table.texts}
    if chat.chat_columns(table.columns) or not table.rows:
        return None
    if (found := _molecules(table.columns, words)) is not None:
        return found
    if any(is_prose(name, values) for name, values in words.items()):
        return None
    if is_log(table.columns):
        seen = f"columns {', '.join(columns)}"
        return Unsupported("a log of users' choices", seen, "It is learnt as such by `modality=interactions`")
    recognisers = (_series, _numbers) if len(table.rows) > 1 else ()
    return next(filter(None, (recognise(columns, words) for recognise in recognisers)), None)


Columns = dict[str, list[str]]  # the values of each column that are not empty, as text


def _values(table: Table, name: str) -> list[str]:
    values: list[Any] = [row.get(name) for _, row in table.rows[:ROWS]]
    return [str(v).strip() for v in values if v not in (None, "")]


def are_molecules(values: Sequence[str]) -> bool:
    """Whether values have the form of SMILES."""
    return share(values, _is_molecule) >= 0.95 and share(values, BONDED.search) >= 0.5


def _is_molecule(value: str) -> bool:
    """Whether a value has the form of SMILES. Digits that close rings occur in pairs."""
    if MOLECULE.fullmatch(value) is None or value.count("(") != value.count(")"):
        return False
    bare = re.sub(r"\[[^\]]*\]|%\d\d", "", value)
    return all(bare.count(digit) % 2 == 0 for digit in set(bare) if digit.isdigit())


def _molecules(names: Sequence[str], words: Columns) -> Unsupported | None:
    named = next((n for n in names if n.lower().strip().endswith(("smiles", "selfies", "inchi"))), None)
    like = (n for n, values in words.items() if len(values) >= LINES and are_molecules(values))
    name = named or next(like, None)
    return None if name is None else Unsupported("molecules", f"column {name}", AS_TEXT.replace("NAME", name))


def _series(columns: Columns, words: Columns) -> Unsupported | None:
    numbers = [name for name, values in columns.items() if values and name not in words]
    clocks = [n for n in numbers if n.lower().strip() in ("time", "timestamp", "date", "datetime", "seconds")]
    dates = [name for name, values in words.items() if are_dates(values)] or clocks
    others = [name for name, values in words.items() if name not in dates and not are_labels(values)]
    numbers = [name for name in numbers if name not in dates]
    if not dates or not numbers or others:
        return None
    seen = f"column {dates[0]} with the dates or times and {_count(numbers)}"
    return Unsupported("time series", seen, AS_TEXT)


def _numbers(columns: Columns, words: Columns) -> Unsupported | None:
    numbers = [name for name, values in columns.items() if values and name not in words]
    if not numbers or not all(are_labels(values) for values in words.values()):
        return None
    return Unsupported("tables of numbers", f"{_count(numbers)} and no column of texts", AS_TEXT)


def _count(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"{counted(len(names), 'column')} of numbers: {shown}"
