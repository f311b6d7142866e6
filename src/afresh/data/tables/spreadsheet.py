"""Spreadsheets (.xlsx, .xlsm) as lines of fields, which the reader of delimited files reads as it does any other table.

The cells of a spreadsheet have types, so that numbers and dates are written in one way here, whatever the person sees:
1234.5, 2026-01-31 and 10:37:00. What stands above the names of the columns, units and totals are found by that reader.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import chain, islice, repeat
from typing import Any

from afresh.core import Omission, UserError
from afresh.core.plural import counted
from afresh.data.files import MB, FileError
from afresh.data.limits import Limits, Meter, parsing
from afresh.data.tables.layout import ABOVE, LOOKED_AT
from afresh.data.tables.parquet import MOST_COLUMNS
from afresh.data.text.document import unpacked

EXTRA = "a spreadsheet is read with the extra spreadsheets: pip install 'afresh[spreadsheets]'"
SEPARATOR = ","
BEFORE_XML = b"\xd0\xcf\x11\xe0"  # the beginning of .xls, and of an .xlsx with a password
MOST_CELLS = 100_000_000  # of a sheet, the empty ones too, which a cell far to the right makes of a few bytes
SECONDS = 300.0  # of the processor for one sheet
FORMULA = re.compile(rb"<f[ />]")
ERRORS = frozenset({"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA"})
THOUSANDS = re.compile(r"-?\d+\.\d{3}")  # a number whose decimals a text could mean as thousands
Cells = tuple[Any, ...]


def lines_of_sheet(raw: bytes, max_mb: int, notes: list[str], wanted: str = "") -> Iterator[str]:
    """The rows of a sheet as lines of fields between commas, without those that are empty.

    `wanted`: the name of the sheet; empty: the first one with a table. What is to be said of it is added to `notes`,
    some of it at the end. Raises FileError if the file is damaged or too large, or if no sheet has a row, and
    UserError if there is no sheet of that name.
    """
    with parsing("spreadsheet"):
        book, formulas = _opened(raw, max_mb)
        name = _sheet(book, wanted)
        others = [repr(sheet.title) for sheet in book.worksheets if sheet.title != name]
        if others and not wanted:
            notes.append(
                Omission(f"the sheet {name!r} is read, and not {', '.join(others)}: save another as a file of its own")
            )
        rows = _rows(book[name])
        texts = repeat(()) if formulas is None else _rows(formulas[name])
        meter = Meter(Limits(max_mb * MB, MOST_CELLS, SECONDS))
        uncalculated, errors = 0, 0

        def written() -> Iterator[list[str]]:
            nonlocal uncalculated, errors
            for row, formula in zip(rows, texts, strict=False):
                meter.add(items=1 + len(row))
                fields = [*map(_field, row)]
                for i in [i for i, value in enumerate(formula) if value is not None and row[i] is None]:
                    fields[i], uncalculated = _field(formula[i]), uncalculated + 1
                for i in [i for i, field in enumerate(fields) if field in ERRORS]:
                    fields[i], errors = "", errors + 1
                while fields and not fields[-1]:
                    fields.pop()
                if fields:
                    yield fields

        filled = written()
        first = list(islice(filled, LOOKED_AT + ABOVE))
        width = max((len(fields) for fields in first if len(fields) <= MOST_COLUMNS), default=0)
        for fields in chain(first, filled):
            line = _line([*fields, *[""] * (width - len(fields))])
            meter.add(bytes=len(line))
            with meter.paused():
                yield from io.StringIO(line, newline="")
        if uncalculated:
            notes.append(
                Omission(
                    f"{counted(uncalculated, 'formula')} without a value, read as text: open the file in a program for "
                    "spreadsheets and save it there"
                )
            )
        if errors:
            notes.append(Omission(f"{counted(errors, 'cell')} with an error, such as #N/A, read as empty"))


def text_of_sheet(raw: bytes, max_mb: int, notes: list[str], most_lines: int | None = None) -> str:
    """`lines_of_sheet` as one text, or its first lines."""
    return "".join(islice(lines_of_sheet(raw, max_mb, notes), most_lines))


def _opened(raw: bytes, max_mb: int) -> tuple[Any, Any]:
    """The book with the values of its cells, and if it has formulas, the book with these."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise FileError(EXTRA) from None
    if raw.startswith(BEFORE_XML):
        raise FileError("it has a password, or is of the older form .xls: save it as .xlsx without a password")
    with unpacked(raw, max_mb) as archive:
        has_formulas = any(_has_formulas(archive, name) for name in archive.namelist() if "/worksheets/" in name)
    warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")  # on what is not read of a file

    def opened(values: bool) -> Any:
        return load_workbook(io.BytesIO(raw), read_only=True, data_only=values)

    return opened(True), opened(False) if has_formulas else None


def _has_formulas(archive: zipfile.ZipFile, name: str) -> bool:
    before = b""
    with archive.open(name) as stream:
        while piece := stream.read(MB):
            if FORMULA.search(before + piece):
                return True
            before = piece[-2:]
    return False


def _sheet(book: Any, wanted: str) -> str:
    """The name of the sheet that is read: the first with a table, or with any rows. Sheets that are hidden come last,
    and charts have no cells."""
    names = [sheet.title for sheet in sorted(book.worksheets, key=lambda sheet: sheet.sheet_state != "visible")]
    if wanted:
        if wanted not in names:
            raise UserError(f"No sheet {wanted!r}. Name one of: {', '.join(names)}.", "unknown_sheet")
        return wanted
    most = [[sum(v is not None for v in row) for row in islice(_rows(book[n]), LOOKED_AT)] for n in names]
    for filled in (2, 1):  # cells of a row of a table, and of a list
        for name, counts in zip(names, most, strict=True):
            if sum(n >= filled for n in counts) > 1:
                return name
    raise FileError("no sheet has a table: the names of columns, and rows below them")


def _rows(sheet: Any) -> Iterator[Cells]:
    sheet.reset_dimensions()  # which a file may state wrongly
    return sheet.iter_rows(values_only=True)


def _field(value: Any) -> str:
    """A cell as text: numbers as Python has them, dates and times as ISO 8601 has them."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
            return f"{text}0" if THOUSANDS.fullmatch(text) else text
        case datetime():
            return str(value.date()) if value.time() == time() else value.isoformat(" ")
        case date() | time():
            return value.isoformat()
        case timedelta():
            minutes, seconds = divmod(round(value.total_seconds()), 60)
            return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    text = getattr(value, "text", value)  # of a formula of several cells
    return str(text)


def _line(fields: Sequence[str]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=SEPARATOR, lineterminator="\n").writerow(fields)
    return out.getvalue()
