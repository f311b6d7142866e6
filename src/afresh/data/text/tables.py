"""JSON, JSON lines, CSV, TSV and Parquet to numbered rows, and the rows that could not be read."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from afresh.data.files import MB, FileError, decode_text, too_large

NESTED = frozenset({"messages", "conversations"})  # columns of lists of objects that are read (afresh.data.text.chat)
SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"})
TEXT_NAMES = ("text", "content", "body", "document", "article", "story", "sentence", "review", "message", "poem")
Row = Mapping[str, Any]


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
        return _parquet(raw, max_mb)
    text = decode(raw)
    if suffix in (".csv", ".tsv"):
        return _tsv(text) if suffix == ".tsv" else _csv(text, ",", csv.QUOTE_MINIMAL)
    return _json(text) if suffix == ".json" else _lines(text)


def _table(rows: list[tuple[int, Row]], bad: list[tuple[int, str]]) -> Table:
    columns = dict.fromkeys(name for _, row in rows for name in row)
    texts = tuple(c for c in columns if any(isinstance(row.get(c), str) for _, row in rows))
    return Table(tuple(columns), texts, rows, bad)


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

    def parse() -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                bad.append((number, f"not JSON: {error.msg} at column {error.colno}"))
            except RecursionError:
                bad.append((number, "not usable JSON: nested too deeply"))

    table = _collect(parse())
    return Table(table.columns, table.texts, table.rows, sorted(table.bad + bad))


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


def _csv(text: str, delimiter: str, quoting: Literal[0, 3]) -> Table:
    csv.field_size_limit(min(sys.maxsize, 1 << 31))  # the size of the file is limited already
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[tuple[int, Row]] = []
    bad: list[tuple[int, str]] = []
    try:
        header = next(reader, [])
        if not any(header):
            raise FileError("no header line: the first line names the columns")
        repeated = sorted({h for h in header if header.count(h) > 1})
        if repeated:
            raise FileError(f"the header names {', '.join(map(repr, repeated))} more than once")
        for number, fields in enumerate(reader, 1):
            if fields and len(fields) != len(header):
                bad.append((number, f"{len(fields)} fields, but the header has {len(header)}"))
            elif fields:
                rows.append((number, dict(zip(header, fields, strict=True))))
    except csv.Error as error:
        raise FileError(f"damaged at line {reader.line_num:,}: {error}") from None
    texts = tuple(c for c in header if any(not _is_number(str(row[c])) for _, row in rows))
    return Table(tuple(header), texts, rows, bad)


def _is_number(value: str) -> bool:
    try:
        float(value or "0")
    except ValueError:
        return False
    return True


def _parquet(raw: bytes, max_mb: int) -> Table:
    import pyarrow
    import pyarrow.parquet
    from pyarrow import types

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(raw))
        names = {f.name: f.type for f in file.schema_arrow}
        words = [n for n, t in names.items() if types.is_string(t) or types.is_large_string(t) or _is_code(t)]
        flat = [n for n, t in names.items() if n in words or types.is_primitive(t) or _is_chat(n, t)]
        meta = file.metadata
        size = sum(meta.row_group(g).column(c).total_uncompressed_size for g, c in _chunks(meta, set(flat)))
        if size > max_mb * MB:
            raise FileError(too_large(size, max_mb))
        content = file.read(columns=flat).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileError(f"not a readable Parquet file: {error}") from None
    skipped = tuple(n for n in names if n not in flat)
    return Table(tuple(flat), tuple(words), list(enumerate(content, 1)), skipped=skipped)


def _is_code(kind: Any) -> bool:
    """Whether a column holds dictionary-encoded strings (categories)."""
    from pyarrow import types

    return bool(types.is_dictionary(kind) and types.is_string(kind.value_type))


def _is_chat(name: str, kind: Any) -> bool:
    """Whether a column holds conversations: lists of objects, under one of the names NESTED."""
    from pyarrow import types

    listed = types.is_list(kind) or types.is_large_list(kind)
    return bool(name.lower() in NESTED and listed and types.is_struct(kind.value_type))


def _chunks(meta: Any, columns: set[str]) -> Iterator[tuple[int, int]]:
    """(row group, column) of the named columns and of conversations."""
    for g in range(meta.num_row_groups):
        for c in range(meta.num_columns):
            path = meta.row_group(g).column(c).path_in_schema
            if path in columns or path.split(".")[0].lower() in NESTED:  # the parts of a nested column
                yield g, c
