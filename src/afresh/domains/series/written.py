"""Columns of values as the content of a file, CSV or Parquet."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

from afresh.core import UserError

Format = Literal["csv", "parquet"]


def format_of(name: str) -> Format:
    """Raises UserError for another format."""
    if name not in ("csv", "parquet"):
        raise UserError(f"The format of tables is csv or parquet. Given: {name}.")
    return name  # type: ignore[return-value]


def table_file(name: str, format: Format) -> str:
    return f"{name}.{format}"


def as_table(columns: Mapping[str, Any], format: Format) -> bytes:
    """The content of a file of columns of equal length."""
    import pyarrow
    from pyarrow import csv, parquet

    table = pyarrow.table(dict(columns))
    buffer = io.BytesIO()
    if format == "parquet":
        parquet.write_table(table, buffer)
    else:
        csv.write_csv(table, buffer, csv.WriteOptions(quoting_style="needed"))
    return buffer.getvalue()
