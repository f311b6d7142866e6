"""The tokens of one column: values that recur have a token of their own, and the others share tokens in groups.

Numbers that do not recur are cut into cells of equally many training values, and a number is drawn evenly within its
cell, so that the distribution is kept and no rare training value is repeated on purpose. Categories that are rare share
tokens, and a second token says which of them it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from afresh.domains.table.columns import DAY, date_of_seconds, decimals_of, seconds_of_date
from afresh.domains.table.row import Cell, Kind

RECURS = 5  # times that a value occurs in training, at least, if it has a token of its own
SHARE = 2_000  # and at least once in so many rows
MOST_OWN = 256  # values of a column with tokens of their own
PER_CELL = 5  # training values of a cell, at least
MOST_CELLS = 512  # of a column of numbers
MISSING, UNKNOWN = 0, 1  # the first tokens of a column; unknown: a category that training does not have
FIRST = 2  # the token of the first value that has one of its own
Plain = Annotated[float, Field(allow_inf_nan=False)]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class DateForm(BaseModel):
    """How dates of a column are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timed: bool
    zoned: bool
    decimals: Literal[0, 3, 6]  # of the seconds


class ColumnCode(BaseModel):
    """The tokens of a column, numbered from 0 in each of its `sizes`. `own`: values with a token of their own.

    Of numbers and dates, `low` and `high` bound the cells, `decimals` are those that are written, None for all. Of
    categories, `rare` are those that share tokens. `group`: how many rare values share their first token. `counts`: of
    each position, how often its tokens occur in training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    own: tuple[bool | int | float | str, ...]
    rare: tuple[bool | str, ...] = ()
    low: tuple[Plain, ...] = ()
    high: tuple[Plain, ...] = ()
    group: int = Field(1, ge=1)
    whole: bool = False  # whether all numbers are written without a point
    decimals: int | None = None
    date: DateForm | None = None
    misses: bool = False  # whether values are missing in training
    counts: tuple[tuple[int, ...], ...] = ()

    @property
    def cells(self) -> int:
        """Cells of numbers, or rare values."""
        return len(self.low) or len(self.rare)

    @property
    def groups(self) -> int:
        return -(-self.cells // self.group)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many tokens each position of the column has."""
        first = FIRST + len(self.own) + self.groups
        return (first, 1 + self.group) if self.group > 1 else (first,)

    @property
    def ordered(self) -> tuple[int, ...]:
        """How many of the last tokens of each position are in order: the cells of numbers and dates."""
        if self.kind == "category" or not self.cells:
            return (0,) * len(self.sizes)
        return (self.cells,)

    # ------------------------------------------------------------------------------------------------ encoding

    @cached_property
    def own_numbers(self) -> Floats:
        """The values with a token of their own as numbers, of numbers and dates."""
        return np.array([self.number(v) for v in self.own], np.float64)

    @cached_property
    def own_places(self) -> dict[Any, int]:
        return {v: i for i, v in enumerate(self.own)}

    @cached_property
    def rare_places(self) -> dict[Any, int]:
        return {v: i for i, v in enumerate(self.rare)}

    def number(self, cell: Cell) -> float:
        """A cell of a column of numbers or dates as a number: days of dates without a time, else seconds."""
        if self.kind == "date":
            assert isinstance(cell, str) and self.date is not None
            return seconds_of_date(cell) / (1 if self.date.timed else DAY)
        assert isinstance(cell, int | float)
        return float(cell)

    def encode(self, cells: Sequence[Cell]) -> Ints:
        """Tokens (N, positions)."""
        if self.kind == "category":
            own, rare = self.own_places, self.rare_places
            places = [(-1, -1) if c is None else (own.get(c, -2), rare.get(c, -1)) for c in cells]
            place, cell = np.array(places, np.int64).reshape(-1, 2).T
            missing = place == -1
        else:
            values = np.array([np.nan if c is None else self.number(c) for c in cells], np.float64)
            place, cell, missing = self._numbers(values)
        first = np.where(place >= 0, FIRST + place, UNKNOWN)
        first = np.where((place < 0) & (cell >= 0), FIRST + len(self.own) + cell // self.group, first)
        first = np.where(missing, MISSING, first)
        if self.group == 1:
            return first[:, None]
        second = np.where(~missing & (place < 0) & (cell >= 0), 1 + cell % self.group, 0)
        return np.stack([first, second], 1)

    def _numbers(self, values: Floats) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """The place of each number among those with a token of their own, or -2; its cell; and whether it is missing.
        Where there is no cell, a number that training does not have is the nearest one that it has."""
        missing = np.isnan(values)
        known = np.where(missing, 0.0, values)
        place = np.full(len(values), -2)
        if len(self.own):
            order = np.argsort(self.own_numbers)
            ordered = self.own_numbers[order]
            right = np.searchsorted(ordered, known).clip(0, len(ordered) - 1)
            left = (right - 1).clip(0)
            nearest = np.where(np.abs(ordered[left] - known) < np.abs(ordered[right] - known), left, right)
            same = np.full(len(values), not self.cells) | (ordered[nearest] == known)
            place = np.where(same, order[nearest], -2)
        if not self.cells:
            return place, np.full(len(values), -1), missing
        edges = (np.array(self.high[:-1]) + np.array(self.low[1:])) / 2
        return place, np.searchsorted(edges, known, side="right"), missing

    # ------------------------------------------------------------------------------------------------ decoding

    def decode(self, tokens: Ints, u: Floats) -> list[Cell]:
        """The cells of tokens (N, positions); `u` (N,) in [0, 1) says where within its cell a number is."""
        first = tokens[:, 0]
        group = first - FIRST - len(self.own)
        cell = group * self.group
        if self.group > 1:
            within = np.where(tokens[:, 1] > 0, tokens[:, 1] - 1, 0)
            cell = cell + within
        cell = cell.clip(0, max(0, self.cells - 1))
        if self.kind == "category":
            drawn: list[Cell] = [self.rare[i] if g >= 0 else None for i, g in zip(cell, group, strict=True)]
        elif self.cells:
            low, high = np.array(self.low)[cell], np.array(self.high)[cell]
            drawn = [self.written(v) for v in (low + u * (high - low)).tolist()]
        else:
            drawn = [None] * len(first)
        out: list[Cell] = []
        for token, g, value in zip(first.tolist(), group.tolist(), drawn, strict=True):
            out.append(value if g >= 0 else self.own[token - FIRST] if token >= FIRST else None)
        return out

    def written(self, number: float) -> Cell:
        """A number as a cell of the column."""
        if self.kind == "date":
            assert self.date is not None
            unit = 1 if self.date.timed else DAY
            number = round(number, self.date.decimals if self.date.timed else None)
            return date_of_seconds(number * unit, self.date.timed, self.date.zoned, self.date.decimals)
        if self.whole:
            return round(number)
        return number if self.decimals is None else round(number, self.decimals) + 0.0

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is one that the column can have."""
        if cell is None:
            return self.misses
        if self.kind == "category":
            return cell in self.own_places or cell in self.rare_places
        if self.kind == "date":
            return isinstance(cell, str)
        return isinstance(cell, int | float) and not isinstance(cell, bool) and math.isfinite(cell)


# --------------------------------------------------------------------------- fitting


def fit_column(name: str, kind: Kind, cells: Sequence[Cell]) -> ColumnCode:
    """The code of a column, from its training cells."""
    code = code_of(name, kind, cells)
    tokens = code.encode(cells)
    counts = [np.bincount(t, minlength=n).tolist() for t, n in zip(tokens.T, code.sizes, strict=True)]
    return code.model_copy(update={"counts": tuple(map(tuple, counts))})


def code_of(name: str, kind: Kind, cells: Sequence[Cell]) -> ColumnCode:
    """The code of a column without the counts of its tokens."""
    known = [c for c in cells if c is not None]
    counts = Counter(known)
    least = max(RECURS, len(known) / SHARE)
    misses = len(known) < len(cells)
    if kind == "category":
        ranked = [v for v, _ in counts.most_common()]
        if len(ranked) > MOST_OWN:
            kept = [v for v in ranked[:MOST_OWN] if counts[v] >= least]
            rare = sorted(ranked[len(kept) :], key=str)
            return ColumnCode(
                name=name, kind=kind, own=kept, rare=rare, group=math.ceil(math.sqrt(len(rare))), misses=misses
            )
        return ColumnCode(name=name, kind=kind, own=ranked, misses=misses)
    form = date_form([str(c) for c in known]) if kind == "date" else None
    own = [v for v, n in counts.most_common(MOST_OWN) if n >= least]
    decimals = decimals_of(known) if kind == "number" else 0 if form is None or not form.timed else form.decimals
    code = ColumnCode(
        name=name,
        kind=kind,
        own=own,
        whole=kind == "number" and all(isinstance(c, int) for c in known),
        decimals=decimals,
        date=form,
        misses=misses,
    )
    rest = np.sort(np.array([code.number(c) for c in known if c not in code.own_places], np.float64))
    if not len(rest):
        return code
    low, high = cells_of(rest, 0.0 if decimals is None else 10.0**-decimals)
    return code.model_copy(update={"low": tuple(low.tolist()), "high": tuple(high.tolist())})


def cells_of(values: Floats, step: float) -> tuple[Floats, Floats]:
    """Bounds of cells that hold about equally many of the sorted values, at least PER_CELL.

    A cell reaches halfway to its neighbour where values are dense, and, where there is a gap, no further beyond its
    values than these are apart. `step`: between written numbers, 0 if they are not rounded.
    """
    count = max(1, min(MOST_CELLS, len(values) // PER_CELL))
    cuts = np.unique([np.searchsorted(values, part[0]) for part in np.array_split(values, count)])
    ends = np.append(cuts[1:], len(values))
    first, last = values[cuts], values[ends - 1]
    apart = np.maximum((last - first) / np.maximum(ends - cuts - 1, 1), step / 2)
    gap = np.concatenate([[step], first[1:] - last[:-1], [step]]) / 2
    return first - np.minimum(gap[:-1], apart), last + np.minimum(gap[1:], apart)


def date_form(cells: Sequence[str]) -> DateForm:
    timed = any(":" in c for c in cells)
    zoned = any(c[-6:-5] in "+-" and c[-3:-2] == ":" for c in cells if ":" in c)
    digits = max((len(c.partition(".")[2].partition("+")[0]) for c in cells if timed), default=0)
    return DateForm(timed=timed, zoned=zoned, decimals=0 if digits == 0 else 3 if digits <= 3 else 6)
