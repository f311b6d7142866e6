"""Whether a path holds series: tables with a column of sorted times of equal steps and columns of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afresh.core import Sniff, UserError
from afresh.data.files import FileError, describes_data, suffix_of, walk
from afresh.data.tables import SUFFIXES
from afresh.data.tables.numbers import as_number
from afresh.data.tables.roles import counts_time, plain_name, shown
from afresh.data.tables.rows import read_head
from afresh.domains.series.reading.columns import LEAST, is_series, series_columns
from afresh.domains.series.reading.options import ReadingOptions

CERTAIN = 0.9
COUNTED = 0.55  # as certain as that it is a table


def recognise(path: Path) -> Sniff:
    """By the first rows of the first table. A table of texts, of choices or of answers has more that is its own, and is
    not a series although it may have times."""
    files = walk(path)[0]
    tables = [f for f in files if suffix_of(f.name) in SUFFIXES]
    if not tables:
        return Sniff(0.0, "no table")
    try:
        head = read_head(tables[0])
        table = {name: [row.get(name) for _, row in head.rows] for name in head.columns}
        columns = series_columns(table, ReadingOptions())
        if isinstance(columns, str):
            return _counted(table) or Sniff(0.0, columns)
        if not is_series(table, columns):
            return Sniff(
                0.0, f"the times in {shown(columns.time)} are not sorted and of equal steps, or there are texts"
            )
    except (FileError, UserError) as error:
        return Sniff(0.0, str(error))
    others = sum(not describes_data(f.name) for f in files) - len(tables)
    return Sniff(CERTAIN * len(tables) / (len(tables) + max(0, others)), columns.words(), columns=1)


def _counted(table: Mapping[str, Sequence[Any]]) -> Sniff | None:
    """What is said of a table in which a column counts years or other steps, one in each row: its name does not say for
    certain that it holds times, so that it has to be asked for."""
    for name, values in table.items():
        numbers = np.array([as_number(v) for v in values], np.float64)
        steps = np.diff(numbers)
        if counts_time(plain_name(name)) and len(steps) >= LEAST and (steps > 0).all() and len(np.unique(steps)) == 1:
            columns = series_columns(table, ReadingOptions(time=name))
            if not isinstance(columns, str):
                return Sniff(COUNTED, columns.words(), settings={"time": name})
    return None
