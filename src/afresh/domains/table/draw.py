"""Partly known rows: conditional rows, and rows whose missing cells are filled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.core import Cond, Corpus, UserError
from afresh.core.plural import counted
from afresh.core.solver_progress import reporting
from afresh.core.verb import Line, Remark, Table
from afresh.data.tables.numbers import is_missing
from afresh.data.tables.spelling import rewritten
from afresh.domains.table.column_code import MISSING, ColumnCode
from afresh.domains.table.columns import cell_reader
from afresh.domains.table.encoder import TableEncoder
from afresh.domains.table.reading import read_columns
from afresh.domains.table.row import Cell, Row, as_csv, as_parquet, csv_of
from afresh.runs.run import Run

SHOWN = 20  # rows that people are shown
NAMED = 12  # values that a message names


def why_not(run: Run) -> str | None:
    """Why a run cannot complete partly known rows, or None."""
    if not isinstance(run.encoder, TableEncoder):
        return "it was not trained on a table"
    if not run.family.sampling.fills:
        return f"its family, {run.family.name}, draws columns in one order: the family masked takes any as known"
    return None


def columns_of(run: Run) -> dict[str, Sequence[str]]:
    """The columns that can be given, and the values of those of categories."""
    codes = table_encoder(run).columns
    written = {code.name: [*code.own, *code.rare] if code.kind == "category" else () for code in codes}
    return {name: [str(v).lower() if isinstance(v, bool) else str(v) for v in vs] for name, vs in written.items()}


def table_encoder(run: Run) -> TableEncoder:
    """Raises UserError for a run that cannot fill in cells."""
    if (reason := why_not(run)) is not None:
        raise UserError(f"{run.path} cannot draw rows with known values: {reason}.", "not_a_table")
    assert isinstance(run.encoder, TableEncoder)
    return run.encoder


def fill_rows(
    run: Run, encoder: TableEncoder, rows: Sequence[Row], free: Sequence[Sequence[bool]], seed: int, whole: bool = False
) -> list[Row]:
    """Rows with the cells drawn where `free` (N, columns) is true, given the others, which stay as they are.

    `whole`: whether no cell may be drawn as missing.
    """
    known = encoder.tokens(rows)
    mask = torch.ones_like(known, dtype=torch.bool)
    for i, code in enumerate(encoder.columns):
        mask[:, encoder.places[code.name]] &= ~torch.tensor([f[i] for f in free])[:, None]
    space = encoder.space
    if whole:
        first = [int(encoder.starts[encoder.places[c.name].start]) for c in encoder.columns]
        missing = {f"{c.name} missing": f + MISSING for c, f in zip(encoder.columns, first, strict=True)}
        space = replace(space, special={**space.special, **missing})

    def sampler(modules: Any, config: Any, _: Any, cond: Cond, rng: Any, index: Any, settings: Any) -> torch.Tensor:
        return run.family.sampling.sample(modules, config, space, cond, rng, index, settings)

    cond = replace(Cond.unconditional(run.conds, len(rows)), known=known, known_mask=mask)
    with reporting("rows"):
        x = run.draw(run.modules, cond, seed, run.settings({}), sampler=sampler, report=True)
    drawn = encoder.decode(x)

    def with_known(new: Sequence[Row]) -> list[Row]:
        pairs = zip(new, rows, free, strict=True)
        return [replace(n, cells=tuple(map(pick, n.cells, r.cells, f))) for n, r, f in pairs]

    def pick(new: Cell, old: Cell, free: bool) -> Cell:
        return new if free else old

    return with_known(encoder.ruled(encoder.sourced(with_known(drawn), free)))


def given_cell(code: ColumnCode, text: str, form: str = "") -> Cell:
    """The cell that a person wrote for a column. Raises UserError if the column has no such value."""
    try:
        cell = cell_reader(code.kind, form)(text)
    except ValueError as error:
        raise UserError(f"{code.name!r} is a column of {code.kind}s, and {error}.") from None
    if cell is None and not code.misses:
        raise UserError(f"{code.name!r} has no missing value in training. Give a value.")
    if code.kind == "category" and not code.holds(cell):
        if (flag := {"true": True, "false": False}.get(text.strip().lower())) is not None and code.holds(flag):
            return flag
        known = [repr(v) for v in (*code.own, *code.rare)]
        more = f" and {len(known) - NAMED:,} more" if len(known) > NAMED else ""
        raise UserError(
            f"{code.name!r} has no category {text!r} in training. It has {', '.join(known[:NAMED])}{more}: give one of "
            "these, or train on rows that have it."
        )
    return cell


def outside(code: ColumnCode, cell: Cell) -> str:
    """A note on a number that is beyond those of training; empty for others."""
    if cell is None or code.kind == "category":
        return ""
    numbers = [*code.own_numbers.tolist(), *code.low[:1], *code.high[-1:]]
    if not numbers or min(numbers) <= code.number(cell) <= max(numbers):
        return ""
    low, high = code.written(min(numbers)), code.written(max(numbers))
    return f"{code.name}={cell} is outside of what training has ({low} to {high}): the nearest that it knows is told"


@dataclass(frozen=True)
class DrawnRows:
    """Rows that were drawn; `format`: csv or parquet."""

    rows: Sequence[Row]
    format: str
    notes: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        return {"rows": [r.written for r in self.rows], "notes": [*self.notes]}

    def lines(self) -> Sequence[Line]:
        cells = [["" if c is None else str(c) for c in r.written.values()] for r in self.rows[:SHOWN]]
        shown = Table(self.rows[0].header.names, cells)
        return [shown, Remark(f"{SHOWN} of {len(self.rows):,} rows")] if len(self.rows) > SHOWN else [shown]

    def files(self) -> Mapping[str, bytes]:
        return {f"rows.{self.format}": as_csv(self.rows) if self.format == "csv" else as_parquet(self.rows)}


def draw_rows(run: Run, n: int, given: Mapping[str, str], format: str, seed: int) -> DrawnRows:
    """n rows with the given cells. Raises UserError as the verb does."""
    encoder = table_encoder(run)
    codes = {code.name: code for code in encoder.columns}
    if unknown := [name for name in given if name not in codes]:
        raise UserError(f"No column {unknown[0]!r}. The columns are: {', '.join(codes)}.", "unknown_column")
    cells = {name: given_cell(codes[name], text, encoder.forms.get(name, "")) for name, text in given.items()}
    notes = [note for name, cell in cells.items() if (note := outside(codes[name], cell))]
    row = Row(encoder.header, tuple(cells.get(name) for name in codes))
    free = [name not in cells for name in codes]
    return DrawnRows(fill_rows(run, encoder, [row] * n, [free] * n, seed), format, notes)


# --------------------------------------------------------------------------- missing values


@dataclass(frozen=True)
class Imputed:
    """A file whose missing cells are filled, `draws` times. `filled`: (row, column, the values drawn) of each."""

    names: Sequence[str]
    draws: Sequence[Sequence[Sequence[Any]]]  # the cells of each row, of each draw
    filled: Sequence[tuple[int, str, Sequence[Cell]]]
    notes: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        cells = [{"row": r + 1, "column": c, "values": [*v], **spread(v)} for r, c, v in self.filled]
        return {"filled": cells, "notes": [*self.notes]}

    def lines(self) -> Sequence[Line]:
        counts = Counter(column for _, column, _ in self.filled)
        each = [f"{counted(n, 'missing value')} of {column!r} filled" for column, n in counts.most_common()]
        rows = [[str(r + 1), c, *map(str, spread(v).values())] for r, c, v in self.filled[:SHOWN]]
        return [*each, Table(("row", "column", "drawn", "mean or likeliest", "deviation or share"), rows)]

    def files(self) -> Mapping[str, bytes]:
        """A table for each draw, and one of all filled cells."""
        names = ["imputed.csv"] if len(self.draws) == 1 else [f"imputed-{i + 1}.csv" for i in range(len(self.draws))]
        cells = [[r + 1, c, *spread(v).values()] for r, c, v in self.filled]
        head = ("row", "column", "drawn", "mean or likeliest", "deviation or share")
        tables = {name: csv_of(self.names, rows) for name, rows in zip(names, self.draws, strict=True)}
        return {**tables, "filled.csv": csv_of(head, cells)}


def spread(values: Sequence[Cell]) -> dict[str, Any]:
    """The first of several draws of a cell, and what they have in common: the mean and deviation of numbers, otherwise
    the value drawn most and its share."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        numbers = np.array(values, np.float64)
        return {"drawn": values[0], "middle": float(f"{numbers.mean():.6g}"), "spread": float(f"{numbers.std():.4g}")}
    likeliest, count = Counter(values).most_common(1)[0]
    return {"drawn": values[0], "middle": likeliest, "spread": round(count / len(values), 4)}


def impute_file(run: Run, path: Path, draws: int, seed: int) -> Imputed:
    """Fill the missing cells of a file. Raises UserError as the verb does."""
    encoder = table_encoder(run)
    if not path.exists():
        raise UserError(f"No file {path}.")
    corpus = Corpus([])
    table = read_columns(path, None, corpus)
    names = list(table.cells)
    notes = list(corpus.notes)
    if not set(encoder.header.names) & set(names):
        raise UserError(
            f"{path} has none of the columns that the model learnt: {', '.join(encoder.header.names)}.",
            "unknown_column",
        )
    if absent := [n for n in encoder.header.names if n not in names]:
        notes.append(f"{', '.join(map(repr, absent))} is not in the file, and is not told")
    if extra := [n for n in names if n not in encoder.header.names]:
        notes.append(f"{', '.join(map(repr, extra))} is not learnt: it stays as it is, and tells nothing")
    count = len(table.sources)
    cells = [read_known(code, table.cells.get(code.name, [None] * count), table.sources) for code in encoder.columns]
    rows = [Row(encoder.header, row) for row in zip(*cells, strict=True)]
    notes += unseen_categories(encoder, cells)
    free = [[c is None for c in row.cells] for row in rows]
    places = {name: i for i, name in enumerate(encoder.header.names)}
    wanted = [name for name in names if name in places]
    todo = [i for i, f in enumerate(free) if any(f[places[name]] for name in wanted)]
    if not todo:
        raise UserError(f"{path} has no missing value in a column that the model learnt: there is nothing to fill.")
    repeated = [i for i in todo for _ in range(draws)]
    drawn = fill_rows(run, encoder, [rows[i] for i in repeated], [free[i] for i in repeated], seed, whole=True)
    forms = {**encoder.forms, **{name: found[0] for name, found in table.forms.items() if found}}

    def written(name: str, cell: Any) -> Any:
        return cell if is_missing(cell) or name not in forms else rewritten(str(cell), forms[name])

    as_given = [[written(name, cell) for cell in cells] for name, cells in table.cells.items()]
    tables = [[list(row) for row in zip(*as_given, strict=True)] for _ in range(draws)]
    filled: list[tuple[int, str, Sequence[Cell]]] = []
    for k, i in enumerate(todo):
        for j, name in enumerate(names):
            if name in wanted and free[i][places[name]]:
                values = [written(name, drawn[k * draws + d].cells[places[name]]) for d in range(draws)]
                filled.append((i, name, values))
                for d, value in enumerate(values):
                    tables[d][i][j] = value
    return Imputed(names, tables, filled, notes)


def unseen_categories(encoder: TableEncoder, cells: Sequence[Sequence[Cell]]) -> list[str]:
    """Notes on categories that training does not have."""
    out = []
    for code, column in zip(encoder.columns, cells, strict=True):
        strange = [c for c in column if c is not None and not code.holds(c)] if code.kind == "category" else []
        if strange:
            rows = counted(len(strange), "row")
            what = f"a category that training does not have ({strange[0]!r}), which tells the model nothing"
            out.append(f"{code.name!r}: {rows} with {what}")
    return out


def read_known(code: ColumnCode, cells: Sequence[Any], sources: Sequence[str]) -> list[Cell]:
    """The cells of a column of a file. Raises UserError for one that is of another kind."""
    read = cell_reader(code.kind)
    out: list[Cell] = []
    for cell, source in zip(cells, sources, strict=True):
        try:
            known = None if is_missing(cell) else read(cell)
        except ValueError as error:
            raise UserError(f"{source}: {code.name!r} is a column of {code.kind}s, and {error}. Correct it.") from None
        flag = {"true": True, "false": False}.get(known.lower()) if isinstance(known, str) else None
        out.append(flag if flag is not None and code.kind == "category" and code.holds(flag) else known)
    return out
