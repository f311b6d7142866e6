"""Columns of values as the content of a file, CSV or Parquet."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any


def table_file(name: str, columns: Mapping[str, Any], format: str) -> dict[str, bytes]:
    """The content of a file of columns of equal length, by its name."""
    import pyarrow
    from pyarrow import csv, parquet

    table = pyarrow.table(dict(columns))
    buffer = io.BytesIO()
    if format == "parquet":
        parquet.write_table(table, buffer)
    else:
        csv.write_csv(table, buffer, csv.WriteOptions(quoting_style="needed"))
    return {f"{name}.{format}": buffer.getvalue()}
