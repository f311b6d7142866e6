"""Tables: CSV, TSV, Excel, JSON and JSON lines, Parquet, Arrow and Feather files, and folders of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data import arrow
from afresh.data.files import DataFile, FileError, decode_text, open_plain, read_bytes, suffix_of, walk
from afresh.data.imported import MediaFile, media_file
from afresh.data.limits import parsing
from afresh.data.split import split_of_name
from afresh.data.tables import SPREADSHEETS
from afresh.data.tables.delimited import MOST_VALUES, Numbered, Row, delimited_rows, too_long
from afresh.data.tables.layout import too_wide
from afresh.data.tables.numbers import is_number
from afresh.data.tables.parquet import MOST_COLUMNS
from afresh.data.tables.rows import LONGEST, bounded_lines, json_row, read_table
from afresh.data.tables.spreadsheet import SEPARATOR, lines_of_sheet
from afresh.data.text.encodings import SAMPLE, guess_encoding
from afresh.services.collect.columns import ColumnOptions, TableColumns, choose, found_in
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Source
from afresh.services.collect.sources.beside import Beside

SUFFIXES = arrow.SUFFIXES | SPREADSHEETS | {".csv", ".tsv", ".jsonl", ".ndjson", ".json"}
LOOKED_AT = 100  # rows that columns are guessed from
Rows = Iterator[Numbered]


class TableOptions(ColumnOptions):
    """`max_file_mb`: of a file that is decoded as a whole, which JSON and Excel are, and of a part of others."""

    max_file_mb: int = Field(default=512, ge=1, le=1 << 20)
    sheet: str = Field("", description="sheet of an Excel file; empty: the first with a table")
    delimiter: str = Field("", max_length=1, description="between the fields of a .csv; empty: by its header")


def files_of(path: Path) -> list[DataFile]:
    """The tables at a path; none if a folder has other files beside them but those that describe it."""
    if path.is_file():
        return [DataFile(path, path.name, path.stat().st_size)] if suffix_of(path.name) in SUFFIXES else []
    if not path.is_dir() or not any(path.iterdir()):
        return []
    files = [f for f in walk(path)[0] if not arrow.CACHES.fullmatch(f.path.name)]
    files = [f for f in files if not arrow.DESCRIBES.fullmatch(f.path.name.lower())]
    return files if all(suffix_of(f.name) in SUFFIXES for f in files) else []


def accepts(place: str) -> bool:
    return bool(files_of(Path(place)))


def find(place: str, options: TableOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """Every row in its order, the files by their names. Raises UserError if it is not clear which column is what."""
    unclear: dict[str, UserError] = {}
    count = 0
    for file in files_of(Path(place)):
        try:
            for one in rows_found(place, file, options):
                count += 1
                yield one
        except UserError as error:
            unclear[file.name] = error
    if unclear and not count:
        raise next(iter(unclear.values()))
    for name, why in unclear.items():
        yield Rejection(place, name, "find", "table", str(why))


def rows_found(
    place: str, file: DataFile, options: TableOptions, beside: Beside | None = None
) -> Iterator[Found | Rejection]:
    """The rows of one table. `beside` reads the files that it names."""
    formulas = 0
    split = split_of_name(file.name)

    files = beside or Beside()

    def read(name: str) -> MediaFile:
        return files.read(file.path, name, options.max_file_mb)

    try:
        with parsing("table"):
            media, rows = table(file, options)
            first = list(islice(rows, LOOKED_AT))
            columns = columns_of([r for _, r in first if not isinstance(r, str)], media, options)
        if columns is not None:
            events.note(f"{file.name}: {columns.words()}", "columns")
        for number, row in chain(first, _parsed(rows)):
            where = f"{file.name}, row {number}"
            if isinstance(row, str):
                yield Rejection(place, where, "find", "rows", row)
            elif columns is not None:
                formulas += sum(isinstance(v, str) and v.startswith("=") for v in row.values())
                yield found_in(place, where, row, columns, split=split, read=read)
    except FileError as error:
        yield Rejection(place, file.name, "find", "table", str(error))
    if formulas:
        events.note(
            f"{file.name}: {counted(formulas, 'cell')} {'begins' if formulas == 1 else 'begin'} with =, as formulas "
            "do: kept as text, not evaluated",
            "formulas",
        )


def _parsed(rows: Rows) -> Rows:
    with parsing("table"):
        yield from rows


def columns_of(rows: list[Row], media: list[str], options: ColumnOptions) -> TableColumns | None:
    """Which columns of these first rows are what; None if there is no row."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    if not names:
        return None
    if len(names) > MOST_COLUMNS:
        raise FileError(too_wide(len(names)))
    texts = [n for n in names if any(isinstance(v := r.get(n), str) and not is_number(v) for r in rows)]
    media = media or [n for n in names if any(_holds_file(r.get(n)) for r in rows)]
    return choose(names, texts, media, options)


def _holds_file(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return isinstance(value, bytes) and media_file(value) is not None


# --------------------------------------------------------------------------- rows


def table(file: DataFile, options: TableOptions) -> tuple[list[str], Rows]:
    """The columns of images or sounds that a table declares, and its rows. Raises FileError, also while reading."""
    suffix = suffix_of(file.name)
    if suffix in arrow.SUFFIXES:
        looked = arrow.look(file)
        return list(looked.media), enumerate(arrow.named_rows(looked), 1)
    if suffix in SPREADSHEETS:
        return [], spreadsheet(file, options)
    if suffix == ".json":
        read = read_table(suffix, read_bytes(file, options.max_file_mb), options.max_file_mb, decode_text)
        return [], iter(sorted([*read.rows, *read.bad], key=lambda pair: pair[0]))
    if suffix in (".csv", ".tsv"):
        return [], separated(file, "\t" if suffix == ".tsv" else options.delimiter)
    return [], json_lines(file)


def _opened(file: DataFile) -> tuple[IO[bytes], str]:
    """A file of text, and its encoding. Raises FileError for what is binary."""
    with open_plain(file) as stream:
        head = stream.read(SAMPLE)
    try:
        decode_text(head[: head.rfind(b"\n") + 1 or len(head)])
    except FileError:
        guessed = guess_encoding(head)
        if guessed is None and b"\0" in head:
            raise
        if guessed is not None:
            events.note(f"{file.name} is not UTF-8 and read as {guessed}, a guess from the bytes", "encoding")
            return open_plain(file), guessed
    return open_plain(file), "utf-8-sig"


def lines_of(file: DataFile, newline: str, guess: bool) -> Iterator[str | None]:
    """The lines of a file; None for one that is too long. Bytes that are not valid become surrogates."""
    stream, encoding = _opened(file) if guess else (open_plain(file), "utf-8-sig")
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    try:
        with stream, io.TextIOWrapper(stream, encoding, errors, newline=newline) as text:
            yield from bounded_lines(text, LONGEST)
    except (OSError, EOFError, UnicodeError) as error:
        raise FileError(f"damaged: {error}") from None


INVALID = "invalid UTF-8"


def json_lines(file: DataFile) -> Rows:
    for number, line in enumerate(lines_of(file, "\n", False), 1):
        if line is None:
            yield number, too_long(LONGEST)
        elif line.strip():
            many = sum(map(line.count, ",[{")) > MOST_VALUES
            yield number, too_long(LONGEST) if many else INVALID if _invalid(line) else json_row(line)


def separated(file: DataFile, separator: str) -> Rows:
    """The rows of a CSV or TSV file. One that is damaged is left out, and reading goes on after it."""
    layout, rows = delimited_rows(lines_of(file, "", True), separator, longest=LONGEST)
    for note in layout.notes:
        events.note(f"{file.name}: {note}", "layout")
    for number, row in rows:
        yield number, INVALID if not isinstance(row, str) and any(map(_invalid, row.values())) else row


def _invalid(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text)


def spreadsheet(file: DataFile, options: TableOptions) -> Rows:
    """The rows of a sheet. Formulas that were never calculated are texts that begin with =; nothing is evaluated."""
    notes: list[str] = []
    lines = lines_of_sheet(read_bytes(file, options.max_file_mb), options.max_file_mb, notes, options.sheet)
    layout, rows = delimited_rows(lines, SEPARATOR, longest=LONGEST)
    yield from rows
    for note in (*notes, *layout.notes):
        events.note(f"{file.name}: {note}", "layout")


def describe(place: str, options: TableOptions) -> list[str]:
    lines = []
    for file in files_of(Path(place)):
        try:
            media, rows = table(file, options)
            looked = [r for _, r in islice(rows, LOOKED_AT) if not isinstance(r, str)]
            columns = columns_of(looked, media, options)
            lines.append(f"{file.name}: {file.size:,} bytes; {columns.words() if columns else 'no rows'}")
        except FileError as error:
            lines.append(f"{file.name}: {error}")
    return lines


ABOUT = "a table (.csv, .tsv, .xlsx, .json, .jsonl, .parquet, .arrow), or a folder of tables"
SOURCE = Source("tables", ABOUT, accepts, find, describe, TableOptions)
