"""What columns of a table are: numbers, categories, dates, or none that can be learnt; and cells in one form."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from afresh.core import Omission
from afresh.core.plural import counted
from afresh.data.tables.numbers import as_number, is_missing
from afresh.data.tables.roles import counts_time, is_prose, plain_name
from afresh.data.tables.spelling import date_seconds
from afresh.domains.table.row import Cell, Kind

EXACT = 1 << 53  # beyond it, whole numbers are not told apart as numbers
LEAST = 20  # different values from which a column of texts that never repeats is taken for one of identifiers
DIFFERENT = 0.95  # share of different values from which it is one, or one of sentences is free text
KEYS = ("id", "uuid", "guid", "key", "nr", "number", "nummer", "rowid", "index", "unnamed", "unnamed0")
DAY = 86_400  # seconds
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


def cell_reader(kind: Kind) -> Callable[[Any], Cell]:
    """What brings a cell of a column of this kind to its one form. It raises ValueError for a cell that is of another
    kind."""
    return {"number": _number, "category": _category, "date": _date}[kind]


def _number(cell: Any) -> Cell:
    if is_missing(cell):
        return None
    number = as_number(cell)
    if number is None:
        raise ValueError(f"{cell!r} is no number")
    if isinstance(cell, int) or (isinstance(cell, str) and cell.strip().lstrip("+-").isdigit()):
        return int(cell)
    return number


def _category(cell: Any) -> Cell:
    if is_missing(cell):
        return None
    return cell if isinstance(cell, bool) else str(cell)


def _date(cell: Any) -> Cell:
    if is_missing(cell):
        return None
    if isinstance(cell, datetime):
        return cell.isoformat(" ")
    if isinstance(cell, date):
        return cell.isoformat()
    if not isinstance(cell, str) or date_seconds(cell) is None:
        raise ValueError(f"{cell!r} is no date")
    return datetime.fromisoformat(cell.strip()).isoformat(" ") if ":" in cell else cell.strip()


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
    out += [
        f"{a!r} determines {b!r} exactly, so that a model of {b!r} learns nothing from other columns beside it. If "
        f"{b!r} is what you want to predict, leave {a!r} out: `data.leave_out={a}`"
        for a, b in determined(columns)
    ]
    return out


def determined(columns: Mapping[str, Sequence[Cell]], most: int = 10) -> list[tuple[str, str]]:
    """Pairs (a, b) of columns of which each value of a goes with one value of b, where values of a recur and b is not
    constant."""
    found = []
    different = {name: len(set(cells)) for name, cells in columns.items()}
    for a, cells in columns.items():
        if 2 * different[a] > len(cells):
            continue  # a value seen once determines everything
        for b, others in columns.items():
            if a == b or not 1 < different[b] <= different[a]:
                continue
            of: dict[Cell, Cell] = {}
            if all(of.setdefault(x, y) == y for x, y in zip(cells, others, strict=True)):
                found.append((a, b))
                if len(found) == most:
                    return found
    return found


def left_out(name: str, why: str) -> Omission:
    return Omission(f"the column {name!r} is left out: {why}. To learn it all the same: `data.categories={name}`")
