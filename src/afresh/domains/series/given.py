"""A table of what is known of the future: columns known in advance, and values of a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from afresh.core import UserError
from afresh.data.files import FileError, named
from afresh.data.tables.batches import batches
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.numbers import numbers_of
from afresh.data.tables.times import seconds_of
from afresh.domains.series.encoder import SeriesEncoder
from afresh.domains.series.reading.inline import TableSource, arrow_table, words_of
from afresh.domains.series.reading.read import whole_table
from afresh.domains.series.reading.regular import Series, regular


def read_given(encoder: SeriesEncoder, source: TableSource, names: list[str]) -> dict[str, Series]:
    """What a table says of each series, by its name, with NaN for columns that it has not. Without the columns
    that tell series apart, it holds for all `names`. Raises UserError if it has no time or no column of the model."""
    settled = encoder.settled
    table = table_of(source)
    columns = set(table.column_names)
    useful = [c for c in (*encoder.columns, *encoder.known) if c in columns]
    if settled["time"] not in columns or not useful:
        raise UserError(
            f"{words_of(source, 'given')} needs the column of times {settled['time']!r} and one or more of "
            f"{', '.join((*encoder.columns, *encoder.known))}. It has {', '.join(table.column_names)}."
        )
    times, _ = seconds_of(table.column(settled["time"]).combine_chunks())

    def numbers(wanted: tuple[str, ...]) -> np.ndarray:
        blank = np.full(len(times), np.nan)
        found = [numbers_of(table.column(c).combine_chunks()) if c in columns else blank for c in wanted]
        return np.array(found).reshape(len(found), len(times)).T

    values, known = numbers(encoder.columns), numbers(tuple(encoder.known))
    apart = [c for c in settled.get("series", ()) if c in columns]
    grid = encoder.grid
    if not apart:
        there = np.isfinite(times)
        one = regular("", times[there], values[there], known[there], grid, grid.length)
        return dict.fromkeys(names, one)
    labels = np.array(
        ["/".join(map(str, row)) for row in zip(*(table.column(c).to_pylist() for c in apart), strict=True)]
    )
    out = {}
    for name in names:
        rows = (labels == name) & np.isfinite(times)
        if rows.any():
            out[name] = regular(name, times[rows], values[rows], known[rows], grid, grid.length)
    return out


def table_of(source: TableSource) -> Any:
    """A table of Arrow. Raises UserError for a file that is missing or no table."""
    if isinstance(source, Mapping):
        return arrow_table(source)
    path = Path(source)
    if not path.is_file():
        raise UserError(f"No file {path}.")
    try:
        return whole_table(batches(named(path), Unusable()))
    except FileError as error:
        raise UserError(f"{path}: {error}.") from None
