"""Whether a path holds series: tables with a column of sorted times of equal steps and columns of numbers."""

from __future__ import annotations

from pathlib import Path

from afresh.core import Sniff, UserError
from afresh.data.files import FileError, describes_data, suffix_of, walk
from afresh.data.tables import SUFFIXES
from afresh.data.tables.rows import read_head
from afresh.domains.series.reading.columns import is_series, series_columns
from afresh.domains.series.reading.options import ReadingOptions

CERTAIN = 0.9


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
            return Sniff(0.0, columns)
        if not is_series(table, columns):
            return Sniff(0.0, f"the times in {columns.time} are not sorted and of equal steps, or there are texts")
    except (FileError, UserError) as error:
        return Sniff(0.0, str(error))
    others = sum(not describes_data(f.name) for f in files) - len(tables)
    return Sniff(CERTAIN * len(tables) / (len(tables) + max(0, others)), columns.words(), columns=1)
