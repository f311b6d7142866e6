"""JSON, JSON lines, CSV, TSV and Parquet to numbered rows, and the rows that could not be read."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

from afresh.data.files import DataFile, FileError, check_values, decode_text, open_plain
from afresh.data.parquet import MOST_COLUMNS, read_parquet, stream_parquet

NESTED = frozenset({"messages", "conversations"})  # columns of lists of objects that are read (afresh.data.text.chat)
SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"})
TEXT_NAMES = ("text", "content", "body", "document", "article", "story", "sentence", "review", "message", "poem")
HUGE = f"not usable JSON: a number of more than {sys.get_int_max_str_digits():,} digits"
Row = Mapping[str, Any]
Choose = Callable[[Any], Sequence[str]]  # the columns that are read, of a schema
BEGINNING, BEGINNING_ROWS, BEGINNING_MB = 1 << 18, 500, 64  # bytes, rows and MB in which a table is recognised


@dataclass(frozen=True)
class Table:
    """Rows with their numbers (from 1; line numbers for JSON lines), columns, and (number, reason) of unusable rows.

    `texts` are the columns that contain text rather than numbers.
    """

    columns: tuple[str, ...]
    texts: tuple[str, ...]
    rows: list[tuple[int, Row]]
    bad: list[tuple[int, str]] = field(default_factory=list)
    skipped: tuple[str, ...] = ()  # columns of nested types: lists, structures, images
    notes: tuple[str, ...] = ()


def read_table(suffix: str, raw: bytes, max_mb: int, decode: Callable[[bytes], str] = decode_text) -> Table:
    """Read the content of a file with this suffix. `decode` converts bytes to text and raises FileError.

    Raises FileError if nothing of it can be used.
    """
    if suffix == ".parquet":
        return _parquet(lambda choose: read_parquet(raw, max_mb, choose))
    text = decode(raw)
    check_values(text)
    if suffix in (".csv", ".tsv"):
        return _tsv(text) if suffix == ".tsv" else _csv(text, ",", csv.QUOTE_MINIMAL)
    return _json(text) if suffix == ".json" else _lines(text)


def _table(rows: list[tuple[int, Row]], bad: list[tuple[int, str]]) -> Table:
    """Raises FileError for too many columns."""
    columns = dict.fromkeys(name for _, row in rows for name in row)
    if len(columns) > MOST_COLUMNS:
        raise FileError(too_wide(len(columns)))
    texts = {name for _, row in rows for name, value in row.items() if isinstance(value, str)}
    return Table(tuple(columns), tuple(c for c in columns if c in texts), rows, bad)


def too_wide(columns: int) -> str:
    """The reason for refusing a table of so many columns."""
    return f"{columns:,} columns, but at most {MOST_COLUMNS:,} are read: remove those that are not needed"


def _row(value: Any) -> Row | str:
    """A row, or the reason why the value is not one. A string is a row with one column, text."""
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, dict):
        return value
    return f"neither an object nor a string, but {type(value).__name__}"


def _collect(values: Iterable[tuple[int, Any]]) -> Table:
    rows: list[tuple[int, Row]] = []
    bad: list[tuple[int, str]] = []
    for number, value in values:
        row = _row(value)
        if isinstance(row, str):
            bad.append((number, row))
        else:
            rows.append((number, row))
    return _table(rows, bad)


def _lines(text: str) -> Table:
    bad: list[tuple[int, str]] = []

    rows: list[tuple[int, Row]] = []
    for number, line in enumerate(text.split("\n"), 1):
        row = json_row(line) if line.strip() else ""
        if not isinstance(row, str):
            rows.append((number, row))
        elif row:
            bad.append((number, row))
    return _table(rows, bad)


def json_row(line: str) -> Row | str:
    """The row in a line of JSON, or the reason why there is none."""
    try:
        return _row(json.loads(line))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        return "not usable JSON: nested too deeply"
    except ValueError:
        return HUGE


def _json(text: str) -> Table:
    """A list of rows, an object that contains a single list, a single row, or JSON lines under another name."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        table = _lines(text)
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
    return _collect(enumerate(content if isinstance(content, list) else [content], 1))


def _tsv(text: str) -> Table:
    """With quoted fields or, if the content is not valid that way, with quotes as ordinary characters."""
    try:
        return _csv(text, "\t", csv.QUOTE_MINIMAL)
    except FileError:
        table = _csv(text, "\t", csv.QUOTE_NONE)
        return replace(table, notes=("quotation marks are read as ordinary characters",))


def header_of(reader: Iterator[list[str]]) -> list[str]:
    """The names of the columns, in the first row of a CSV file. Raises FileError if there are none, too many, or equal
    ones, and csv.Error for a damaged row."""
    header = next(reader, [])
    if not any(header):
        raise FileError("no header line: the first line names the columns")
    if len(header) > MOST_COLUMNS:
        raise FileError(too_wide(len(header)))
    repeated = sorted(h for h, n in Counter(header).items() if n > 1)
    if repeated:
        raise FileError(f"the header names {', '.join(map(repr, repeated))} more than once")
    return header


def _csv(text: str, delimiter: str, quoting: Literal[0, 3]) -> Table:
    csv.field_size_limit(min(sys.maxsize, 1 << 31))  # the size of the file is limited already
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[tuple[int, Row]] = []
    bad: list[tuple[int, str]] = []
    try:
        header = header_of(reader)
        for number, fields in enumerate(reader, 1):
            if fields and len(fields) != len(header):
                bad.append((number, f"{len(fields)} fields, but the header has {len(header)}"))
            elif fields:
                rows.append((number, dict(zip(header, fields, strict=True))))
    except csv.Error as error:
        raise FileError(f"damaged at line {reader.line_num:,}: {error}") from None
    texts = tuple(c for c in header if any(not is_number(str(row[c])) for _, row in rows))
    return Table(tuple(header), texts, rows, bad)


def is_number(value: str) -> bool:
    """Whether a cell is a number, or empty."""
    try:
        float(value or "0")
    except ValueError:
        return False
    return True


def read_beginning(file: DataFile, suffix: str) -> Table:
    """A table of the first rows of a file, for knowing what it holds. Raises FileError if nothing of it can be used."""
    if suffix == ".parquet":
        return _parquet(lambda choose: islice(stream_parquet(file, BEGINNING_MB, choose), BEGINNING_ROWS))
    with open_plain(file) as stream:
        head = stream.read(BEGINNING)
    head = head[: head.rfind(b"\n") + 1 or len(head)]
    return read_table(suffix, head, BEGINNING_MB, lambda raw: raw.decode("utf-8", "replace"))


def _parquet(read: Callable[[Choose], Iterable[Row]]) -> Table:
    from pyarrow import types

    words: list[str] = []
    flat: list[str] = []
    skipped: list[str] = []  # lists, structures, images

    def choose(schema: Any) -> list[str]:
        for name, kind in ((f.name, f.type) for f in schema):
            if types.is_string(kind) or types.is_large_string(kind) or _is_code(kind):
                words.append(name)
            usable = name in words or types.is_primitive(kind) or _is_chat(name, kind)
            (flat if usable else skipped).append(name)
        return flat

    rows = list(enumerate(read(choose), 1))
    return Table(tuple(flat), tuple(words), rows, skipped=tuple(skipped))


def _is_code(kind: Any) -> bool:
    """Whether a column holds dictionary-encoded strings (categories)."""
    from pyarrow import types

    return bool(types.is_dictionary(kind) and types.is_string(kind.value_type))


def _is_chat(name: str, kind: Any) -> bool:
    """Whether a column holds conversations: lists of objects, under one of the names NESTED."""
    from pyarrow import types

    listed = types.is_list(kind) or types.is_large_list(kind)
    return bool(name.lower() in NESTED and listed and types.is_struct(kind.value_type))
