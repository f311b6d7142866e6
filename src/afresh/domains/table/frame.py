"""Rows as arrays, column by column, for everything that measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.domains.table.columns import seconds_of_date
from afresh.domains.table.row import Cell, Header, Kind, Row

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """Columns of N rows: numbers and dates as float64, NaN where missing; categories as numbers of `levels`, where
    missing is a category, too."""

    header: Header
    columns: tuple[Floats, ...]
    levels: tuple[int, ...]  # of each column; 0 for numbers

    def __len__(self) -> int:
        return len(self.columns[0])

    def take(self, rows: Ints | NDArray[np.bool_]) -> Frame:
        return Frame(self.header, tuple(c[rows] for c in self.columns), self.levels)

    @property
    def categorical(self) -> list[bool]:
        return [n > 0 for n in self.levels]


def frames_of(*tables: Sequence[Row]) -> list[Frame]:
    """Tables of one header as frames, in which a category has the same number."""
    header = next(table[0].header for table in tables if table)
    columns = [list(zip(*(row.cells for row in table), strict=True)) or [()] * len(header.names) for table in tables]
    levels = []
    out: list[list[Floats]] = [[] for _ in tables]
    for i, kind in enumerate(header.kinds):
        numbers: dict[Cell, int] = {}
        for k, table in enumerate(columns):
            out[k].append(_column(table[i], kind, numbers))
        levels.append(max(1, len(numbers)) if kind == "category" else 0)
    return [Frame(header, tuple(cells), tuple(levels)) for cells in out]


def _column(cells: Sequence[Cell], kind: Kind, numbers: dict[Cell, int]) -> Floats:
    if kind == "category":
        return np.array([numbers.setdefault(c, len(numbers)) for c in cells], np.float64)
    if kind == "date":
        cells = [None if c is None else seconds_of_date(str(c)) for c in cells]
    return np.array([np.nan if c is None else c for c in cells], np.float64)


def shuffled_columns(frame: Frame, seed: int = 0) -> Frame:
    """The same columns in random orders of their own: right marginals, and nothing between columns."""
    rng = np.random.default_rng(seed)
    return Frame(frame.header, tuple(rng.permutation(c) for c in frame.columns), frame.levels)
