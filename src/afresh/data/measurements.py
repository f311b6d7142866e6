"""Tables of what was measured: a column that holds items or names their files, and a column of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_high
from typing import Any

from afresh.core import ItemKind, Refused, UserError
from afresh.core.plural import counted
from afresh.data.files import MB, FileError, must_exist, named, read_bytes, suffix_of
from afresh.data.tables import SUFFIXES
from afresh.data.tables import rows as tables
from afresh.data.tables.numbers import UNITS, as_number, is_missing, units_of
from afresh.data.tables.roles import check_column, columns_by_role, lowered

MOST_MB = 512
TABLE = "proposals.csv"  # in a folder of proposals
ITEM, FILE, ID = "item", "file", "id"  # columns of items, of their files, and of their ids in proposals
PREDICTED = ("predicted", "low", "high")  # columns of what was believed of an item before it was measured
NOT_MEASURED = (*PREDICTED, "chance", "nearest", "similarity", "nearest_measured")
LOOKED_AT = 200  # rows in which the column of items is looked for
FAR = 100.0  # times that the values of one table are larger than those of another before it is said


@dataclass(frozen=True, eq=False)
class MeasuredItem:
    """One row: an item, its value (None if it is missing), where it stands, its id if it has one, and the mean and 90%
    interval that were predicted of it before, if any."""

    item: Any
    value: float | None
    where: str
    name: str | None = None
    predicted: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Observed:
    """All rows that could be used, those that could not, and notes."""

    rows: list[MeasuredItem] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def measured(self) -> list[MeasuredItem]:
        """The rows that have a value."""
        return [row for row in self.rows if row.value is not None]


def read_observed(paths: Sequence[Path], kind: ItemKind, column: str, item_column: str | None = None) -> Observed:
    """The rows of several tables (.csv, .tsv, .jsonl, .json, .parquet, also .gz), or of folders of proposals.

    Raises UserError for a table that cannot be read, a column that it does not have, and values of several units.
    """
    out = Observed()
    sizes: list[tuple[str, float]] = []
    for given in paths:
        must_exist(given)
    for given in sorted(paths, key=lambda path: not path.is_dir()):  # results may name proposals by their ids alone
        path = given / TABLE if given.is_dir() else given
        found = read_one(path, kind, column, item_column, {r.name: r.item for r in out.rows if r.name is not None})
        out.rows.extend(found.rows)
        out.refused.extend(found.refused)
        out.notes.extend(found.notes)
        sizes.append((path.name, median_high([abs(r.value) for r in found.measured if r.value] or [0.0])))
    sizes = [(name, size) for name, size in sizes if size > 0]
    if sizes and (high := max(sizes, key=lambda s: s[1]))[1] > FAR * (low := min(sizes, key=lambda s: s[1]))[1]:
        out.notes.append(
            f"{column} is some {high[1] / low[1]:,.0f} times larger in {high[0]} than in {low[0]}: are these the same "
            "units?"
        )
    names = Counter(r.name for r in out.rows if r.name is not None)
    digests: dict[str, set[str]] = {}
    for row in out.rows:
        if row.name is not None and names[row.name] > 1:
            digests.setdefault(row.name, set()).add(kind.digest(row.item))
    if several := [name for name, found in digests.items() if len(found) > 1]:
        shown = ", ".join(several[:5])
        out.notes.append(
            f"{counted(len(several), 'identifier')} stand for several {kind.plural} ({shown}): each row counts as what "
            "it holds"
        )
    return out


def read_one(
    path: Path, kind: ItemKind, column: str, item_column: str | None, known: Mapping[str, Any] | None = None
) -> Observed:
    """The rows of one table. Its items may be `known` by their ids."""
    table = table_of(path)
    check_column(path, table.columns, column)
    out = Observed(refused=[Refused(f"{path.name}, row {n}", reason) for n, reason in table.bad])
    out.notes.extend(f"{path.name}: {note}" for note in table.notes)
    ids = known or {}
    by_id = item_column is None and any(str(row.get(ID)) in ids for _, row in table.rows)
    source = ID if by_id else items_column(path, table, kind, column, item_column)
    values = numbers_of(path, table, column, out)
    missing = 0
    for (at, row), value in zip(table.rows, values, strict=True):
        where = f"{path.name}, row {at}"
        if isinstance(value, str):
            out.refused.append(Refused(where, value))
            continue
        name = None if is_missing(row.get(ID)) else str(row[ID])
        try:
            item = (
                ids[name] if by_id and name is not None and name in ids else item_of(row.get(source), path.parent, kind)
            )
        except (ValueError, OSError) as error:
            out.refused.append(Refused(where, str(error)))
            continue
        missing += value is None
        before = [as_number(row.get(p)) for p in PREDICTED]
        predicted = None if None in before else tuple(before)
        out.rows.append(MeasuredItem(item, value, where, name, predicted))  # type: ignore[arg-type]
    if missing:
        out.notes.append(f"{path.name}: {missing:,} of {len(table.rows):,} rows have no {column} yet")
    return out


def columns_of_numbers(path: Path) -> list[str]:
    """The columns of a table that hold numbers and may be measured: not its ids, nor what was predicted."""
    must_exist(path)
    table = table_of(path / TABLE if path.is_dir() else path)
    usual = {ITEM, FILE, ID, *NOT_MEASURED}
    numeric = [c for c in table.columns if c not in table.texts and c.strip().lower() not in usual]
    return [c for c in numeric if any(as_number(row.get(c)) is not None for _, row in table.rows)]


def table_of(path: Path) -> tables.RowTable:
    suffix = suffix_of(path.name)
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path} is not a table. Give {', '.join(sorted(SUFFIXES))}, also as .gz, with a column of items "
            "and a column of numbers.",
            "not_a_table",
        )
    try:
        raw = read_bytes(named(path), MOST_MB)
        table = tables.read_table(suffix, raw, len(raw) // MB + MOST_MB)
    except (FileError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "not_a_table") from None
    if not table.rows:
        raise UserError(f"{path} has no rows that can be used.", "no_items")
    return table


def items_column(path: Path, table: tables.RowTable, kind: ItemKind, column: str, wanted: str | None) -> str:
    """The column of items, or of the files that hold them: the one that is `wanted`, one with a usual name, or the one
    whose cells are items. Raises UserError if none exists."""
    if wanted is not None:
        check_column(path, table.columns, wanted)
        return wanted
    usual = (ITEM, kind.name) if kind.inline else (FILE, ITEM, kind.name, "path", ID)
    rows = table.rows[:LOOKED_AT]

    def readable(name: str) -> float:
        """The share of the cells that are items."""
        cells = [row.get(name) for _, row in rows]
        good = 0
        for cell in cells:
            try:
                item_of(cell, path.parent, kind)
                good += 1
            except (ValueError, OSError):
                pass
        return good / len(cells)

    def length(name: str) -> float:
        return sum(len(str(row.get(name) or "")) for _, row in rows)

    by_name = columns_by_role(table.columns, {ITEM: usual}, plain=lowered, suits=lambda role, name: readable(name) > 0)
    if by_name:
        return by_name[ITEM]
    others = [c for c in table.texts if c != column]
    shares = {c: readable(c) for c in others}
    best = max(others, key=lambda c: (shares[c] > 0.5, length(c)), default=None)
    if best is None or not shares[best] > 0.5:
        what = "holds" if kind.inline else "names files of"
        raise UserError(
            f"No column of {path} {what} {kind.plural}. Its columns: {', '.join(table.columns[:20])}. Name the column: "
            "`item_column`.",
            "no_column",
        )
    return best


def item_of(cell: Any, folder: Path, kind: ItemKind) -> Any:
    """The item in a cell, or in the file that it names. Raises ValueError or OSError, saying why, if none exists."""
    if is_missing(cell):
        raise ValueError(f"no {kind.name}")
    text = str(cell)
    if kind.inline:
        return kind.decode(text.encode("utf-8", "surrogatepass"))
    path = folder / text
    if not path.is_file() and (folder / f"{text}{kind.suffix}").is_file():
        path = folder / f"{text}{kind.suffix}"
    if not path.is_file():
        raise ValueError(f"there is no file {text}")
    return kind.decode(path.read_bytes())


def numbers_of(path: Path, table: tables.RowTable, column: str, out: Observed) -> list[float | str | None]:
    """Of each row its number, None if it is missing, or why it cannot be used. Numbers that all have the same unit are
    taken without it. Raises UserError for several units, and if no cell is a number."""
    cells = [row.get(column) for _, row in table.rows]
    present = [c for c in cells if not is_missing(c)]
    units = units_of(present)
    if len(units) > 1 or (units and sum(as_number(c) is not None for c in present)):
        given = ", ".join(units) + (" and none" if len(units) == 1 else "")
        raise UserError(
            f"The values of {column!r} in {path} have several units: {given}. Give plain numbers of one unit.",
            "several_units",
        )
    if units:
        out.notes.append(f"{path.name}: {column} is taken in {units[0]}")
    values: list[float | str | None] = []
    for cell in cells:
        text = str(cell).strip()
        plain = text[: -len(units[0])].strip() if units and text.endswith(units[0]) else cell
        value = as_number(plain)
        if is_missing(cell):
            values.append(None)
        elif value is not None:
            values.append(value)
        elif text[:1] in "<>":
            values.append(f"{text!r} is a bound, not a value: leave it empty, or give the best estimate")
        elif "," in text and as_number(text.replace(",", ".")) is not None:
            values.append(f"{text!r} has a comma: write a decimal point")
        elif (
            (found := UNITS.fullmatch(text)) is not None and as_number(text) is None and not found[1].startswith("inf")
        ):
            values.append(f"{text!r} has a unit, and other values have none")
        else:
            values.append(f"{text[:40]!r} is not a finite number")
    if present and not any(isinstance(v, float) for v in values):
        raise UserError(
            f"Column {column!r} of {path} has no numbers. Its values begin with "
            f"{', '.join(repr(str(c)[:40]) for c in present[:3])}.",
            "no_numbers",
        )
    return values
