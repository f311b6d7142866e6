"""JSON, JSON lines, CSV, TSV, spreadsheets and Parquet to numbered rows, and the rows that could not be read."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import IO, Any, AnyStr

from afresh.data.files import DataFile, FileError, check_values, decode_text, open_plain, read_bytes, suffix_of
from afresh.data.limits import parsing
from afresh.data.tables import DATA_BASES, SPREADSHEETS, SUFFIXES
from afresh.data.tables.delimited import Numbered, Row, delimited_rows, too_long
from afresh.data.tables.layout import ABOVE, decode_table, encoding_of, too_wide
from afresh.data.tables.numbers import is_number
from afresh.data.tables.parquet import MOST_COLUMNS, read_parquet, stream_parquet
from afresh.data.tables.spelling import spelling_of_cells
from afresh.data.tables.spreadsheet import SEPARATOR, text_of_sheet
from afresh.data.tables.sql import read_rows
from afresh.data.tables.totals import TOTALS, lines_of_totals

NESTED = frozenset({"messages", "conversations"})  # columns of lists of objects that are read (afresh.data.text.chat)
LONGEST = 64 << 20  # characters of a line, a cell or a row, where rows are read one at a time
HUGE = f"not usable JSON: a number of more than {sys.get_int_max_str_digits():,} digits"
Choose = Callable[[Any], Sequence[str]]  # the columns that are read, of a schema
HEAD, HEAD_ROWS, HEAD_MB = 1 << 18, 500, 64  # bytes, rows and MB in which a table is recognised
SHEET_MB = 512  # of a spreadsheet, which is unpacked as a whole


@dataclass(frozen=True)
class RowTable:
    """Rows with their numbers (from 1; line numbers for JSON lines), columns, and (number, reason) of unusable rows.

    `texts` are the columns that contain text rather than numbers.
    """

    columns: tuple[str, ...]
    texts: tuple[str, ...]
    rows: list[tuple[int, Row]]
    bad: list[tuple[int, str]] = field(default_factory=list)
    skipped: tuple[str, ...] = ()  # columns of nested types: lists, structures, images
    notes: tuple[str, ...] = ()

    def texts_of(self, column: str) -> list[str]:
        """The values of a column that are not empty, as texts."""
        values: list[Any] = [row.get(column) for _, row in self.rows]
        return [str(v).strip() for v in values if v not in (None, "")]


def read_table(
    suffix: str, raw: bytes, max_mb: int, decode: Callable[[bytes], str] | None = None, *, nested: bool = False
) -> RowTable:
    """Read the content of a file with this suffix. `decode` converts bytes to text and raises FileError; None: by
    their beginning. `nested`: columns of nested types are read as well.

    Raises FileError if nothing of it can be used.
    """
    if suffix == ".parquet":
        return _parquet(lambda choose: read_parquet(raw, max_mb, choose), nested)
    if suffix in SPREADSHEETS:
        return _sheet(raw, max_mb)
    delimited = suffix in (".csv", ".tsv")
    text = (decode or (decode_table if delimited else decode_text))(raw)
    check_values(text)
    if delimited:
        return _tsv(text) if suffix == ".tsv" else _delimited(text)
    return _json(text) if suffix == ".json" else _table(json_rows(text.split("\n")))


def read_groups(file: DataFile, groups: Sequence[int], max_mb: int) -> RowTable:
    """The rows in groups of a Parquet file, of which each has at most `max_mb` MB. Raises FileError if they cannot be
    read."""
    return _parquet(lambda choose: stream_parquet(file, max_mb, choose, groups))


def read_head(file: DataFile) -> RowTable:
    """A table of the first rows of a file, for knowing what it holds; rows that are damaged are left out. Raises
    FileError if nothing of it can be used."""
    suffix = suffix_of(file.path.name)
    with parsing("table"):
        if suffix == ".parquet":
            return _parquet(lambda choose: islice(stream_parquet(file, HEAD_MB, choose), HEAD_ROWS))
        if suffix in DATA_BASES:
            names, values = next(read_rows(file, None, HEAD_ROWS), ([], []))
            return _table(enumerate((dict(zip(names, row, strict=True)) for row in values[:HEAD_ROWS]), 1))
        if suffix in SPREADSHEETS:
            return _first_rows_of_sheet(file, file.path.stat().st_mtime_ns)
        with open_plain(file) as stream:
            head = stream.read(HEAD)
        text = codecs.getincrementaldecoder(encoding_of(head))("replace").decode(head).removeprefix("\ufeff")
        text = text[: text.rfind("\n") + 1 or len(text)]
        if suffix in SUFFIXES - {".csv"}:
            table = read_table(suffix, text.encode(), HEAD_MB)
        else:
            table = _delimited(text, longest=LONGEST)
        return replace(table, rows=table.rows[:HEAD_ROWS])


def read_heads(files: Iterable[DataFile]) -> Iterator[tuple[DataFile, RowTable]]:
    """`read_head` of those that can be read."""
    for file in files:
        with suppress(FileError):
            yield file, read_head(file)


def _good_and_bad(numbered: Iterable[Numbered]) -> tuple[list[tuple[int, Row]], list[tuple[int, str]]]:
    rows: list[tuple[int, Row]] = []
    bad: list[tuple[int, str]] = []
    for number, row in numbered:
        if isinstance(row, str):
            bad.append((number, row))
        else:
            rows.append((number, row))
    return rows, bad


def _table(numbered: Iterable[Numbered]) -> RowTable:
    """Raises FileError for too many columns."""
    rows, bad = _good_and_bad(numbered)
    columns = dict.fromkeys(name for _, row in rows for name in row)
    if len(columns) > MOST_COLUMNS:
        raise FileError(too_wide(len(columns)))
    texts = {name for _, row in rows for name, value in row.items() if isinstance(value, str)}
    return _spelled(RowTable(tuple(columns), tuple(c for c in columns if c in texts), rows, bad))


def _spelled(table: RowTable, separator: str = "") -> RowTable:
    """The table with its numbers and dates written in one way, and notes on what they were."""
    cells = {name: [row.get(name) for _, row in table.rows] for name in table.texts}
    spelling = spelling_of_cells(cells, separator)
    if not spelling.columns:
        return replace(table, notes=(*table.notes, *spelling.notes))
    read = {name: spelling.reader(name) for name in spelling.columns}

    def one_way(row: Row) -> Row:
        return {n: read[n](v) if n in read and isinstance(v, str) else v for n, v in row.items()}

    rows = [(number, one_way(row)) for number, row in table.rows]
    return replace(table, rows=rows, notes=(*table.notes, *spelling.notes))


# --------------------------------------------------------------------------- JSON


def row_of(value: Any) -> Row | str:
    """A row, or the reason why the value is not one. A string is a row with one column, text."""
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, dict):
        return value
    return f"neither an object nor a string, but {type(value).__name__}"


def json_row(line: str) -> Row | str:
    """The row in a line of JSON, or the reason why none exists."""
    try:
        return row_of(json.loads(line))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        return "not usable JSON: nested too deeply"
    except ValueError:
        return HUGE


def json_rows(lines: Iterable[str | None]) -> Iterator[Numbered]:
    """The rows in lines of JSON that are not blank, with the numbers of their lines. None is one that is too long."""
    for number, line in enumerate(lines, 1):
        if line is None:
            yield number, too_long(LONGEST)
        elif line.strip():
            yield number, json_row(line)


def bounded_lines(stream: IO[AnyStr], longest: int) -> Iterator[AnyStr | None]:
    """The lines of a stream; None for one that has more than `longest` characters or bytes."""
    while line := stream.readline(longest + 1):
        if len(line) <= longest:
            yield line
            continue
        while (rest := stream.readline(1 << 20)) and rest[-1:] not in ("\n", "\r", b"\n", b"\r"):
            pass
        yield None


def _json(text: str) -> RowTable:
    """A list of rows, an object that contains a single list, a single row, or JSON lines under another name."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        table = _table(json_rows(text.split("\n")))
        if not table.rows:
            raise FileError(f"not JSON: {error.msg} at line {error.lineno:,}, column {error.colno:,}") from None
        return table
    except RecursionError:
        raise FileError("not usable JSON: nested too deeply") from None
    except ValueError:
        raise FileError(HUGE) from None
    if isinstance(content, dict):
        lists = [v for v in content.values() if isinstance(v, list) and v and isinstance(v[0], dict | str)]
        content = lists[0] if len(lists) == 1 else [content]
    values = content if isinstance(content, list) else [content]
    return _table((number, row_of(value)) for number, value in enumerate(values, 1))


# --------------------------------------------------------------------------- CSV and TSV


def _tsv(text: str) -> RowTable:
    """With quoted fields or, if the content is not valid that way, with quotes as ordinary characters."""
    try:
        return _delimited(text, "\t")
    except FileError:
        table = _delimited(text, "\t", quoted=False)
        return replace(table, notes=("quotation marks are read as ordinary characters",))


def _delimited(text: str, separator: str = "", *, quoted: bool = True, longest: int | None = None) -> RowTable:
    layout, numbered = delimited_rows(io.StringIO(text, newline=""), separator, quoted=quoted, longest=longest)
    rows, bad = _good_and_bad(numbered)
    totals = set(lines_of_totals([list(row.values()) for _, row in rows]))
    bad = sorted([*bad, *((rows[i][0], TOTALS) for i in totals)])
    rows = [row for i, row in enumerate(rows) if i not in totals]
    table = RowTable(layout.kept, layout.kept, rows, bad, notes=tuple(layout.notes))
    table = _spelled(table, layout.separator)
    return replace(table, texts=tuple(c for c in layout.kept if any(not is_number(r[c]) for _, r in table.rows)))


def _sheet(raw: bytes, max_mb: int, most_lines: int | None = None) -> RowTable:
    notes: list[str] = []
    text = text_of_sheet(raw, max_mb, notes, most_lines)
    check_values(text)
    table = _delimited(text, SEPARATOR)
    return replace(table, notes=(*notes, *table.notes))


@lru_cache(maxsize=4)  # every kind of data looks at it, and opening a large one takes seconds
def _first_rows_of_sheet(file: DataFile, changed: int) -> RowTable:
    """`changed`: when the file was, in ns."""
    table = _sheet(read_bytes(file, SHEET_MB), SHEET_MB, HEAD_ROWS + ABOVE)
    return replace(table, rows=table.rows[:HEAD_ROWS])


# --------------------------------------------------------------------------- Parquet


def _parquet(read: Callable[[Choose], Iterable[Row]], nested: bool = False) -> RowTable:
    from pyarrow import types

    words: list[str] = []
    flat: list[str] = []
    skipped: list[str] = []  # lists, structures, images

    def choose(schema: Any) -> list[str]:
        for name, kind in ((f.name, f.type) for f in schema):
            if types.is_string(kind) or types.is_large_string(kind) or _is_code(kind):
                words.append(name)
            usable = nested or name in words or types.is_primitive(kind) or _is_chat(name, kind)
            (flat if usable else skipped).append(name)
        return flat

    rows = list(enumerate(read(choose), 1))
    return RowTable(tuple(flat), tuple(words), rows, skipped=tuple(skipped))


def _is_code(kind: Any) -> bool:
    """Whether a column holds dictionary-encoded strings (categories)."""
    from pyarrow import types

    return bool(types.is_dictionary(kind) and types.is_string(kind.value_type))


def _is_chat(name: str, kind: Any) -> bool:
    """Whether a column holds conversations: lists of objects, under one of the names NESTED."""
    from pyarrow import types

    listed = types.is_list(kind) or types.is_large_list(kind)
    return bool(name.lower() in NESTED and listed and types.is_struct(kind.value_type))
