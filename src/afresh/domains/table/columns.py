"""What columns of a table are: numbers, categories, dates, or none that can be learnt; and cells in one form."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Omission
from afresh.core.plural import counted
from afresh.data.tables.numbers import as_number, is_missing
from afresh.data.tables.roles import counts_time, is_prose, plain_name
from afresh.data.tables.spelling import date_moment, date_seconds, order_in
from afresh.domains.table.row import Cell, Kind

EXACT = 1 << 53  # beyond it, whole numbers are not told apart as numbers
LEAST = 20  # different values from which a column of texts that never repeats is taken for one of identifiers
DIFFERENT = 0.95  # share of different values from which it is one, or one of sentences is free text
KEYS = ("id", "uuid", "guid", "key", "nr", "number", "nummer", "rowid", "index", "unnamed", "unnamed0")
DAY = 86_400  # seconds
LOOKED_AT = 500  # rows by which columns are told not to go with each other
MOST_DIGITS = 9  # after the point, beyond which numbers are not rounded
Floats = NDArray[np.float64]
CHANCE = math.log(1e-6)  # below it, it is not by chance that a column says what another one does
IDENTIFIER = "it has a different value in almost every row, like an identifier"


@dataclass(frozen=True)
class Choice:
    """What a column is taken for; no kind: it is left out, for the reason `why`."""

    kind: Kind | None
    why: str = ""


def choose_kind(name: str, cells: Sequence[Any]) -> Choice:
    """What a column is by its name and its cells."""
    known = [c for c in cells if not is_missing(c)]
    if not known:
        return Choice(None, "it has no value at all")
    different = len(set(known))
    if all(map(_is_date, known[:50])) and all(map(_is_date, known)):
        return Choice("date")
    numbers = [as_number(c) for c in known]
    if all(n is not None for n in numbers) and not any(map(_keeps_zeros, known)):
        if any(n is not None and abs(n) > EXACT and n == int(n) for n in numbers):
            if different == len(known):
                return Choice(None, f"it holds whole numbers beyond {EXACT:,}, all different, like an identifier")
            return Choice("category", f"it holds whole numbers beyond {EXACT:,}, which are taken as names")
        if different == len(known) >= LEAST and _counts(name, numbers):
            return Choice(None, "it numbers the rows")
        return Choice("number")
    share = different / len(known)
    texts = [str(c) for c in known]
    if different >= LEAST and share >= DIFFERENT and is_prose(name, texts):
        return Choice(None, "it is free text")
    if different >= LEAST and share >= DIFFERENT:
        return Choice(None, IDENTIFIER)
    return Choice("category")


def _is_date(cell: Any) -> bool:
    return isinstance(cell, date) or (isinstance(cell, str) and date_seconds(cell) is not None)


def _keeps_zeros(cell: Any) -> bool:
    """Whether a text is digits with a zero before them, as postcodes have, which numbers would lose."""
    return isinstance(cell, str) and len(cell) > 1 and cell[0] == "0" and cell.isdigit()


def _counts(name: str, numbers: Sequence[float | None]) -> bool:
    """Whether numbers that are all different are those of rows: they rise by one, or the column is named as a key and
    they are whole."""
    values = [n for n in numbers if n is not None]
    whole = all(n == int(n) for n in values)
    rises = all(b - a == 1 for a, b in zip(values, values[1:], strict=False))
    plain = plain_name(name)
    return whole and ((rises and not counts_time(plain)) or plain in KEYS or plain.endswith("id"))


def cell_reader(kind: Kind, form: str = "") -> Callable[[Any], Cell]:
    """What brings a cell of a column of this kind to the one form that models learn; dates are written in `form`. It
    raises ValueError for a cell that is of another kind."""
    if kind == "date":
        return partial(_date, form=form)
    return _number if kind == "number" else _category


def _number(cell: Any) -> Cell:
    if is_missing(cell):
        return None
    number = as_number(cell)
    if number is None:
        raise ValueError(f"{cell!r} is not a number")
    if isinstance(cell, int) or (isinstance(cell, str) and cell.strip().lstrip("+-").isdigit()):
        return int(cell)
    return number


def _category(cell: Any) -> Cell:
    if is_missing(cell):
        return None
    return cell if isinstance(cell, bool) else str(cell)


def _date(cell: Any, form: str = "") -> Cell:
    if is_missing(cell):
        return None
    if isinstance(cell, datetime):
        return cell.isoformat(" ")
    if isinstance(cell, date):
        return cell.isoformat()
    moment = date_moment(cell, order_in(form) if form else "?") if isinstance(cell, str) else None
    if moment is None:
        raise ValueError(f"{cell!r} is not a date")
    return moment.isoformat(" ") if ":" in cell else moment.date().isoformat()


def seconds_of_date(cell: str) -> float:
    """Seconds since 1970 of a date in a cell."""
    found = date_seconds(cell)
    assert found is not None, cell
    return found


def date_of_seconds(seconds: float, timed: bool, zoned: bool, decimals: int) -> str:
    """A date in the form of its column: to the day, or with a time and so many decimals of its seconds (0, 3 or 6)."""
    moment = datetime.fromtimestamp(math.floor(seconds), UTC)
    if not timed:
        return moment.date().isoformat()
    moment = moment.replace(microsecond=min(999_999, round((seconds - math.floor(seconds)) * 1e6)))
    spec = {0: "seconds", 3: "milliseconds", 6: "microseconds"}[decimals]
    text = moment.isoformat(" ", spec)
    return text if zoned else text.removesuffix("+00:00")


# --------------------------------------------------------------------------- notes


def notes_on(names: Sequence[str], columns: Mapping[str, Sequence[Cell]], kinds: Sequence[Kind]) -> list[str]:
    """What a person should know of the columns that are learnt: how many are of each kind, what is constant, and which
    column says exactly what another one says."""
    words: dict[Kind, tuple[str, str]] = {
        "number": ("number", "numbers"),
        "category": ("category", "categories"),
        "date": ("date", "dates"),
    }
    counts = Counter(kinds)
    out = ["columns: " + ", ".join(counted(counts[k], *words[k]) for k in words if counts[k])]
    for name in names:
        if len(set(columns[name])) == 1:
            out.append(f"{name!r} has one value in all rows ({columns[name][0]!r}), which all samples have too")
    rows = counted(len(next(iter(columns.values()))), "row")
    out += [
        f"{r.words} in all {rows}, and rows that are made keep to it. If {r.of!r} is what you want to predict, leave "
        f"{r.by!r} out, beside which other columns say nothing: `data.leave_out={r.by}`"
        for r in rules_of(columns, kinds)
    ]
    return out


class Rule(BaseModel):
    """A column `of` that another one, `by`, determines: by factor * number + shift up to its digits, or by a table of
    values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    of: str
    factor: float = Field(0.0, allow_inf_nan=False)
    shift: float = Field(0.0, allow_inf_nan=False)
    digits: int = Field(0, ge=0, le=MOST_DIGITS)
    whole: bool = False
    table: tuple[tuple[Cell, Cell], ...] = ()

    @cached_property
    def values(self) -> dict[Cell, Cell]:
        return dict(self.table)

    def known(self, cell: Cell) -> bool:
        """Whether the rule says what goes with a cell of the column `by`."""
        return cell in self.values if self.table else cell is None or isinstance(cell, int | float)

    def value(self, cell: Cell) -> Cell:
        """What goes with a known cell."""
        if self.table or cell is None:
            return self.values.get(cell)
        assert isinstance(cell, int | float)
        number = self.factor * cell + self.shift
        return round(number) if self.whole else round(number, self.digits) + 0.0

    def source(self, cell: Cell) -> Cell:
        """A cell of the column `by` that this one goes with."""
        if self.table or cell is None:
            return next((by for by, of in self.table if of == cell), None)
        assert isinstance(cell, int | float)
        return (cell - self.shift) / self.factor

    @property
    def words(self) -> str:
        if self.table:
            return f"{self.by!r} determines {self.of!r} exactly"
        shift = f" {'+' if self.shift > 0 else '-'} {abs(self.shift):.6g}" if self.shift else ""
        return f"{self.by!r} determines {self.of!r} exactly (times {self.factor:.6g}{shift})"


def rules_of(columns: Mapping[str, Sequence[Cell]], kinds: Sequence[Kind]) -> list[Rule]:
    """A rule for each column that one without a rule determines in all rows, so that it cannot be by chance. Of two
    that determine each other, the first one determines."""
    found: dict[str, Rule] = {}
    names, of_kind = list(columns), dict(zip(columns, kinds, strict=True))
    different = {name: len(set(cells)) for name, cells in columns.items()}
    numbers = {n: np.array([np.nan if c is None else c for c in columns[n]], np.float64)
               for n in names if of_kind[n] == "number"}  # fmt: skip
    digits = {n: decimals_of(columns[n]) for n in numbers}
    pairs = [(a, b) for i, b in enumerate(names) for a in (*names[:i], *names[i + 1 :])]
    for by, of in sorted(pairs, key=lambda pair: names.index(pair[0]) > names.index(pair[1])):
        if by in found or of in found or of in {r.by for r in found.values()} or different[of] < 2:
            continue
        rule, most = None, digits.get(of)
        able = by in numbers and most is not None and different[by] >= LEAST
        if able and most is not None and (line := linear(numbers[by], numbers[of], most)):
            factor, shift = line
            whole = all(isinstance(c, int) for c in columns[of] if c is not None)
            rule = Rule(by=by, of=of, factor=factor, shift=shift, digits=most, whole=whole)
        elif different[of] <= different[by] <= len(columns[by]) / 2:
            rule = table_rule(by, of, columns[by], columns[of], different[by])
        if rule is not None:
            found[of] = rule
    return list(found.values())


def linear(x: Floats, y: Floats, digits: int) -> tuple[float, float] | None:
    """The factor and the shift that make all of y of x, rounded to `digits` after the point, as a price in two
    currencies, with as few digits as suffice; None if none do."""
    if (np.isnan(x) != np.isnan(y)).any():
        return None
    x, y = x[~np.isnan(x)], y[~np.isnan(y)]
    half = 0.5 * 10.0**-digits * (1 + 1e-6) + 1e-9 * float(np.abs(y).max())
    for n in (LOOKED_AT, len(x)):  # most columns are told apart by the first rows
        a, b = x[:n], y[:n]
        if np.ptp(a) == 0 or np.ptp(b) < 20 * half:
            return None
        factor = float(np.polyfit(a - a.mean(), b, 1)[0])
        shift = float(b.mean() - factor * a.mean())
        if np.abs(factor * a + shift - b).max() > 2 * half:
            return None
    rounded = ((float(f"{factor:.{n}g}"), float(f"{s:.{n}g}")) for n in range(1, 9) for s in (0.0, shift))
    tried = (*rounded, (factor, shift))
    return next((pair for pair in tried if np.abs(pair[0] * x + pair[1] - y).max() <= half), None)


def table_rule(by: str, of: str, cells: Sequence[Cell], others: Sequence[Cell], different: int) -> Rule | None:
    """Values that go with those of another column, if that could not be so by chance where these recur."""
    table: dict[Cell, Cell] = {}
    if not all(table.setdefault(x, y) == y for x, y in zip(cells, others, strict=True)):
        return None
    alike = sum((n / len(others)) ** 2 for n in Counter(others).values())  # the chance that two rows agree
    if (len(cells) - different) * math.log(alike) > CHANCE:
        return None
    return Rule(by=by, of=of, table=tuple(table.items()))


def decimals_of(cells: Sequence[Any]) -> int | None:
    """The most digits after the point of any number; None if there are too many to be meant."""
    broken = (c for c in set(cells) if isinstance(c, float) and not c.is_integer())
    most = max((-int(Decimal(repr(c)).as_tuple().exponent) for c in broken), default=0)
    return most if most <= MOST_DIGITS else None


def left_out(name: str, why: str) -> Omission:
    return Omission(f"the column {name!r} is left out: {why}. To learn it all the same: `data.categories={name}`")
