"""One row of a table, and rows as items: JSON alone, and CSV together."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from afresh.core import ItemKind, Preview

Cell = str | int | float | bool | None  # None: missing; dates are texts of ISO 8601
Kind = Literal["number", "category", "date"]
SHOWN = 12  # columns of a row that are shown


@dataclass(frozen=True)
class Header:
    """The names of the columns of a table. Not part of what is compared: the kind of each, and the column that the
    report predicts, if it is set."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...] = field(compare=False)
    target: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Row:
    """The cells of a row, one for each name of the header. `copy`: how many equal rows come before it in the table,
    because rows that are equal are different people or things, and each counts."""

    header: Header
    cells: tuple[Cell, ...]
    copy: int = field(default=0, compare=False)


def as_json(row: Row) -> str:
    """The row as an object of JSON, with null for missing cells."""
    return json.dumps(dict(zip(row.header.names, row.cells, strict=True)), ensure_ascii=False)


def digest(row: Row) -> str:
    text = as_json(row) + (f"\n{row.copy}" if row.copy else "")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def describe(row: Row) -> str:
    pairs = [f"{n} {v}" for n, v in zip(row.header.names, row.cells, strict=True) if v is not None]
    return ", ".join(pairs[:SHOWN]) + (", ..." if len(pairs) > SHOWN else "")


def cells_of(row: Row) -> list[tuple[str, str]]:
    """(column, value) of each cell, as text; a missing value is empty."""
    return [(n, "" if v is None else str(v)) for n, v in zip(row.header.names, row.cells, strict=True)]


def decode(content: bytes) -> Row:
    """Raises ValueError if the content is not an object of JSON with plain values."""
    cells = json.loads(content.decode("utf-8", "surrogatepass"))
    if not isinstance(cells, dict) or not all(isinstance(v, str | int | float | bool | None) for v in cells.values()):
        raise ValueError("a row is an object of JSON whose values are texts, numbers, true, false or null")
    kinds: tuple[Kind, ...] = tuple(
        "number" if isinstance(v, int | float) and not isinstance(v, bool) else "category" for v in cells.values()
    )
    return Row(Header(tuple(cells), kinds), tuple(cells.values()))


def as_csv(rows: Sequence[Row], records: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """Rows with the same header as a table. Missing cells are empty."""
    return csv_of(rows[0].header.names, [row.cells for row in rows])


def csv_of(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Rows of cells as a table. Missing cells are empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(["" if c is None else c for c in row] for row in rows)
    return buffer.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(rows: Sequence[Row]) -> bytes:
    """Rows with the same header as a Parquet table. Columns of texts and numbers both are texts."""
    import pyarrow
    from pyarrow import parquet

    columns = dict(zip(rows[0].header.names, zip(*(row.cells for row in rows), strict=True), strict=True))
    arrays = {}
    for name, cells in columns.items():
        try:
            arrays[name] = pyarrow.array(cells)
        except pyarrow.ArrowException:
            arrays[name] = pyarrow.array([None if c is None else str(c) for c in cells])
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(arrays), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


ROW = ItemKind(
    name="row",
    plural="rows",
    view="text",
    digest=digest,
    describe=describe,
    previews=lambda rows: [Preview(text=describe(row), cells=cells_of(row)) for row in rows],
    size=lambda row: len(row.cells),
    unit="columns",
    encode=lambda row: as_json(row).encode("utf-8", "surrogatepass"),
    decode=decode,
    collected={".csv": as_csv},
    searched=0,  # rows of few columns are alike by chance; the report compares distances with those of held-out rows
)
