"""Whether files that can be read as text hold texts: a table does if it has words, and not only numbers and dates."""

from __future__ import annotations

from collections.abc import Sequence

from afresh.core import Sniff, Unsupported
from afresh.core.plural import counted
from afresh.data.files import suffix_of
from afresh.data.tables.roles import TITLE_NAMES, are_dates, are_labels, is_prose, plain_name
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
SURE = 0.95  # of a table of texts
NAMES = 0.35  # of a table of numbers or dates in which short texts name the rows, and are no titles
AS_TEXT = "To learn one column as text all the same: `modality=text` and `data.text_column=NAME`"


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
        if numbers and all(map(are_labels, words.values())):
            shown = ", ".join(numbers[:6]) + (", ..." if len(numbers) > 6 else "")
            seen = f"{counted(len(numbers), 'column')} of numbers: {shown} and no column of texts"
            return Sniff(0.0, "it has only numbers", Unsupported("tables of numbers", seen, AS_TEXT))
        if numbers or any(map(are_dates, words.values())):
            named = [name for name, values in words.items() if not are_labels(values) and not are_dates(values)]
            if not any(plain_name(n) in TITLE_NAMES and not plain_name(n).endswith("name") for n in named):
                settings = {"text_column": named[0]} if named else {}
                return Sniff(NAMES, f"short texts in {', '.join(named or words)}", settings=settings)
    return Sniff(SURE, "a table of texts")
