"""The tables of a log, a batch of rows at a time, so that ten million events need not be held as objects of Python."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from afresh.data.files import MB, DataFile, FileError, open_plain
from afresh.data.parquet import DAMAGED, stream_batches
from afresh.data.sql import read_rows
from afresh.data.text.tables import is_number, json_row
from afresh.domains.interactions.columns import USERS, plain
from afresh.domains.interactions.times import UNITS

TEXT_TABLES = frozenset({".csv", ".tsv", ".inter", ".dat", ".data", ".txt"})
DATA_BASES = frozenset({".db", ".sqlite", ".sqlite3"})
SUFFIXES = TEXT_TABLES | DATA_BASES | {".jsonl", ".ndjson", ".json", ".parquet"}
ROWS = 65_536  # of a batch
AT_ONCE = 64 * MB  # of a batch of Parquet
MOST_MB = 1024  # of what is decoded of Parquet at once
BLOCK = 8 * MB  # of a text that is parsed at once
BEGINNING = 65_536  # bytes from which the separator and the header are judged
SEPARATORS = ("\t", ",", ";", "|")
SEQUENCES = frozenset({"items", "history", "sequence", "itemids", "itemsequence"})  # columns of lists of items
ONE = dict.fromkeys(SEQUENCES, "item") | {"times": "time", "timestamps": "time", "ratings": "rating"}
HEADERLESS = {2: ("user", "item"), 3: ("user", "item", "rating"), 4: ("user", "item", "rating", "time")}


@dataclass
class Unusable:
    """Rows that could not be read: how many for each reason, and the number of the first of them."""

    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, reason: str, row: int, count: int = 1) -> None:
        """`row`: the number of the first of `count` rows."""
        if count:
            known, first = self.reasons.get(reason, (0, row))
            self.reasons[reason] = known + count, min(first, row)


def batches(file: DataFile, unusable: Unusable, query: str | None = None, lists: bool = False) -> Iterator[Any]:
    """Batches of rows (pyarrow.RecordBatch) of a file; texts keep their form, so that an id `007` stays one.

    `query` is the table or the query of a data base. `lists`: lists of items stay in their rows, instead of an item a
    row. Raises FileError if the file cannot be read.
    """
    import pyarrow

    suffix = Path(file.path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
    if suffix == ".parquet":
        read = _parquet(file)
    elif suffix in DATA_BASES:
        read = _sqlite(file, query)
    elif suffix in (".jsonl", ".ndjson", ".json"):
        read = _json_lines(file, unusable)
    else:
        read = _delimited(file, unusable)
    try:
        for number, batch in enumerate(read):
            if len(set(batch.schema.names)) != len(batch.schema.names):
                raise FileError("two columns have the same name: give one of them another")
            name = f"{Path(file.name).stem} {number}" if number else Path(file.name).stem
            yield batch if lists else one_a_row(batch, name)
    except (pyarrow.ArrowException, *DAMAGED, sqlite3.Error) as error:
        raise FileError(f"not a readable table: {str(error).strip().splitlines()[0] or type(error).__name__}") from None


def one_a_row(batch: Any, name: str) -> Any:
    """A batch with a list of items in each row as one with an item in each row. Rows that do not say whose list it is
    are those of one user each, who is given the name."""
    import pyarrow
    from pyarrow import compute

    lists = [n for n in batch.schema.names if plain(n) in SEQUENCES and pyarrow.types.is_list(batch.column(n).type)]
    if not lists:
        return batch
    row = compute.list_parent_indices(batch.column(lists[0]))
    columns = {}
    for n in batch.schema.names:
        column = batch.column(n)
        inner = pyarrow.types.is_list(column.type)
        same = inner and compute.list_parent_indices(column).equals(row)
        columns[ONE.get(plain(n), n)] = compute.list_flatten(column) if same else column.take(row)
    if not any(USERS.fullmatch(plain(n)) for n in columns):
        users = [f"{name} {i}" if batch.num_rows > 1 else name for i in range(batch.num_rows)]
        columns["user"] = pyarrow.array(users).take(row)
    return pyarrow.record_batch(list(columns.values()), list(columns))


def _parquet(file: DataFile) -> Iterator[Any]:
    held: list[Any] = []
    rows = size = 0
    for piece in stream_batches(file, MOST_MB):
        if held and (rows + piece.num_rows > ROWS or size > AT_ONCE):
            yield _joined(held)
            held, rows, size = [], 0, 0
        held.append(piece)
        rows, size = rows + piece.num_rows, size + piece.nbytes
    if held:
        yield _joined(held)


def _joined(batches: list[Any]) -> Any:
    import pyarrow

    [whole] = pyarrow.Table.from_batches(batches).combine_chunks().to_batches()
    return whole


def _sqlite(file: DataFile, query: str | None) -> Iterator[Any]:
    """The rows of a query, or of the only table."""
    import pyarrow

    for names, rows in read_rows(file, query, ROWS):
        yield pyarrow.record_batch([_column([r[i] for r in rows]) for i in range(len(names))], names)


def _json_lines(file: DataFile, unusable: Unusable) -> Iterator[Any]:
    with open_plain(file) as stream:
        rows: list[dict[str, Any]] = []
        for number, raw in enumerate(stream, 1):
            row = json_row(raw.decode("utf-8", "replace")) if raw.strip() else ""
            if isinstance(row, str):
                unusable.add(row.split(":")[0], number, int(bool(row)))
            else:
                rows.append(dict(row))
            if len(rows) == ROWS:
                yield _of_rows(rows)
                rows = []
        if rows:
            yield _of_rows(rows)


def _of_rows(rows: list[dict[str, Any]]) -> Any:
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row))
    return pyarrow.record_batch([_column([row.get(n) for row in rows]) for n in names], names)


def _column(values: list[Any]) -> Any:
    """Values of one type as such, mixed ones as texts."""
    import pyarrow

    kinds = {type(v) for v in values if v is not None}
    if kinds == {list}:
        return pyarrow.array(
            [None if v is None else list(map(str, v)) for v in values], pyarrow.list_(pyarrow.string())
        )
    if len(kinds) == 1 and kinds <= {int, float, str, bool}:
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowInvalid, OverflowError):
            pass
    return pyarrow.array([None if v is None else v if isinstance(v, str) else json.dumps(v, default=str)
                          for v in values], pyarrow.string())  # fmt: skip


def _delimited(file: DataFile, unusable: Unusable) -> Iterator[Any]:
    import pyarrow.csv

    with open_plain(file) as stream:
        beginning = stream.read(BEGINNING)
    encoding = "utf8" if _is_utf8(beginning) else "cp1252"
    lines = beginning.decode(encoding, "replace").lstrip("\ufeff").splitlines()
    if not lines:
        raise FileError("the file is empty")
    double = "::" in lines[0]  # MovieLens 1M writes 1::1193::5::978300760
    separator = "::" if double else max(SEPARATORS, key=lines[0].count)
    header = lines[0].split("::") if double else next(csv.reader([lines[0]], delimiter=separator))
    bare = _headerless(header) if all(cell and is_number(cell) for cell in header) else None
    names = bare or [n.strip() for n in header]
    if len(set(names)) != len(names):
        raise FileError("the header names a column more than once")

    def skip(row: Any) -> str:
        unusable.add(f"not {row.expected_columns} fields", row.number or 0)
        return "skip"

    with open_plain(file) as stream:
        source = _DoubleColons(stream) if double else stream
        reader = pyarrow.csv.open_csv(
            source,
            read_options=pyarrow.csv.ReadOptions(
                block_size=BLOCK,
                column_names=names,
                skip_rows=0 if bare else 1,
                encoding=encoding,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\x1f" if double else separator, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={n: pyarrow.string() for n in names}, strings_can_be_null=True, null_values=[""]
            ),
        )
        yield from reader


def _is_utf8(raw: bytes) -> bool:
    try:
        raw[: raw.rfind(b"\n") + 1 or len(raw)].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _headerless(first: list[str]) -> list[str] | None:
    """The names of columns of numbers without a header, as MovieLens has them: who, what, how good, when."""
    names = list(HEADERLESS.get(len(first), ()))
    if len(first) == 3 and float(first[2]) >= UNITS[0][1]:
        names[2] = "time"
    return names or None


class _DoubleColons:
    """A stream whose fields are separated by one character instead of two colons."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.closed, self.left = cast(BinaryIO, stream), False, b""

    def read(self, size: int = -1) -> bytes:
        raw = self.left + self.stream.read(size)
        cut = len(raw) - 1 if raw.endswith(b":") and len(raw) > 1 else len(raw)
        self.left = raw[cut:]
        return raw[:cut].replace(b"::", b"\x1f")

    def close(self) -> None:
        self.closed = True
