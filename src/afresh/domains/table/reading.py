"""Files of tables to rows with one header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Corpus, Item, Omission, UserError
from afresh.core.plural import counted
from afresh.data.files import DataFile
from afresh.data.refusals import refusal_lines
from afresh.data.split import split_of_name
from afresh.data.tables import TABLES
from afresh.data.tables.batches import read_tables
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.roles import check_given
from afresh.domains.table.columns import Choice, cell_reader, choose_kind, left_out, notes_on
from afresh.domains.table.row import Cell, Header, Kind, Row

MOST_ROWS = 1_000_000  # that are held; each is about a kilobyte
BY_HAND: dict[str, Kind] = {"numbers": "number", "categories": "category", "dates": "date"}
ISO = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S")  # as dates are written unless a form says otherwise
WORDS = {kind: option for option, kind in BY_HAND.items()}


class ReadingOptions(BaseModel):
    """What columns are, where it is set by hand, and which are left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    numbers: tuple[str, ...] = Field((), description="columns of numbers")
    categories: tuple[str, ...] = Field((), description="columns of categories, also where they look like numbers")
    dates: tuple[str, ...] = Field((), description="columns of dates")
    leave_out: tuple[str, ...] = Field((), description="columns that are not learnt")
    target: str | None = Field(None, description="the column that the report predicts, to see what rows are good for")
    query: str | None = Field(None, description="of a data base: the table, or a query that gives the rows")

    @property
    def by_hand(self) -> dict[str, Kind]:
        return {name: kind for option, kind in BY_HAND.items() for name in getattr(self, option)}


@dataclass
class Columns:
    """The cells of a table by column as its files have them, and the file and the row that each row is from."""

    cells: dict[str, list[Any]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    beyond: int = 0  # rows that were too many
    forms: dict[str, list[str] | None] = field(default_factory=dict)  # of dates, in which all of a column are written


def read_columns(path: Path, query: str | None, corpus: Corpus) -> Columns:
    """All tables of a path below each other. Refused files and rows are added to the corpus. Raises UserError if files
    have different columns."""
    found = Columns()
    first = ""

    def add(file: DataFile, batches: Iterator[Any], unusable: Unusable) -> None:
        nonlocal first
        number = 1
        for batch in batches:
            names = batch.schema.names
            if not found.cells:
                found.cells, first = {name: [] for name in names}, file.name
            _check_same(list(found.cells), names, first, file.name)
            room = max(0, min(batch.num_rows, MOST_ROWS - len(found.sources)))
            found.beyond += batch.num_rows - room
            for name in names:
                found.cells[name] += values_with_their_digits(batch.column(name).slice(0, room))
            found.sources += [f"{file.name}, row {number + i:,}" for i in range(room)]
            found.splits += [split_of_name(file.name)] * room
            number += batch.num_rows

    corpus.refused, corpus.notes, _ = read_tables(path, add, query, forms=found.forms)
    if found.beyond:
        corpus.notes.append(
            Omission(f"{counted(found.beyond, 'row')} beyond the first {MOST_ROWS:,} are not read: give a sample")
        )
    if not found.sources:
        raise UserError(
            f"No row of a table in {path} ({', '.join(sorted(TABLES))}).", lines=refusal_lines(corpus.refused)
        )
    return found


def values_with_their_digits(column: Any) -> list[Any]:
    """The values of a column of Arrow; of float32, 327.1 and not the nearest float64, 327.1000061035156."""
    values: list[Any] = column.to_pylist()
    short = {"float": np.float32, "halffloat": np.float16}.get(str(column.type))
    return values if short is None else [None if v is None else float(str(short(v))) for v in values]


def _check_same(known: Sequence[str], names: Sequence[str], first: str, file: str) -> None:
    if set(known) != set(names):
        only = [n for n in known if n not in names], [n for n in names if n not in known]
        raise UserError(
            f"{first} and {file} are different tables: {', '.join(map(repr, only[0])) or 'no column'} only in the "
            f"first, {', '.join(map(repr, only[1])) or 'no column'} only in the second. Give tables with the same "
            "columns, or one file."
        )


def read_rows(path: Path, options: ReadingOptions) -> Corpus:
    """One Item a row. Raises UserError if there is no row, if a column that was named is missing, and if a column that
    was set by hand holds something else."""
    corpus = Corpus([])
    table = read_columns(path, options.query, corpus)
    check_named(list(table.cells), options)
    choices = {name: chosen(name, cells, options) for name, cells in table.cells.items()}
    for name, choice in choices.items():
        if choice.kind is None:
            corpus.notes.append(left_out(name, choice.why) if choice.why else Omission(f"{name!r} is left out, as set"))
        elif choice.why:
            corpus.notes.append(f"{name!r} is a category: {choice.why}")
    kinds = {name: choice.kind for name, choice in choices.items() if choice.kind is not None}
    if not kinds:
        raise UserError(
            f"No column of {path} can be learnt. Name those to learn: `data.categories=NAME` or `data.numbers=NAME`.",
            lines=[str(n) for n in corpus.notes],
        )
    cells = {name: read_cells(name, table.cells[name], kind, table.sources) for name, kind in kinds.items()}
    dates = {name: table.forms[name] for name, kind in kinds.items() if kind == "date" and name in table.forms}
    forms = {name: found[0] for name, found in dates.items() if found and found[0] not in ISO}
    corpus.notes += [
        f"dates of {name!r} are not all in one known form: samples write them as 2026-01-31"
        for name in dates
        if not dates[name]
    ]
    header = Header(tuple(kinds), tuple(kinds.values()), options.target, forms)
    corpus.items = rows_of(header, cells, table.sources, table.splits)
    corpus.notes += notes_on(header.names, cells, header.kinds)
    corpus.settled = {
        **{option: tuple(n for n, k in kinds.items() if k == kind) for option, kind in BY_HAND.items()},
        "leave_out": tuple(n for n, c in choices.items() if c.kind is None),
    }
    return corpus


def rows_of(
    header: Header, cells: dict[str, list[Cell]], sources: Sequence[str], splits: Sequence[str | None]
) -> list[Item]:
    """Items of the rows; equal rows are numbered, so that none of them is taken for a mistake."""
    seen: Counter[tuple[Cell, ...]] = Counter()
    items = []
    for row, source, split in zip(zip(*cells.values(), strict=True), sources, splits, strict=True):
        items.append(Item(Row(header, row, seen[row]), source, split=split))
        seen[row] += 1
    return items


def check_named(names: Sequence[str], options: ReadingOptions) -> None:
    """Raises UserError if a column that an option names does not exist, or is named for two kinds."""
    for option in (*BY_HAND, "leave_out"):
        for name in getattr(options, option):
            check_given(names, {option: name})
    if options.target is not None and (options.target not in names or options.target in options.leave_out):
        raise UserError(
            f"No column {options.target!r} to predict (`data.target`). The columns are: {', '.join(names)}.",
            "unknown_column",
        )
    twice = [n for n, k in Counter(n for o in BY_HAND for n in getattr(options, o)).items() if k > 1]
    if twice:
        raise UserError(f"{twice[0]!r} is named for two kinds. Name it in one of `data.numbers`, `data.categories` and "
                        "`data.dates`.")  # fmt: skip


def chosen(name: str, cells: Sequence[Any], options: ReadingOptions) -> Choice:
    if name in options.leave_out:
        return Choice(None)
    return Choice(kind) if (kind := options.by_hand.get(name)) else choose_kind(name, cells)


def read_cells(name: str, cells: Sequence[Any], kind: Kind, sources: Sequence[str]) -> list[Cell]:
    """The cells of a column in the form of its kind. Raises UserError for one that is of another kind."""
    read = cell_reader(kind)
    out: list[Cell] = []
    for cell, source in zip(cells, sources, strict=True):
        try:
            out.append(read(cell))
        except ValueError as error:
            raise UserError(
                f"{source}: {name!r} is set to hold {WORDS[kind]}, but {error}. Correct "
                f"it, or set `data.categories={name}`."
            ) from None
    return out
