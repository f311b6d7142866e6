"""Tables of a path, to series of equal steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from afresh.core import Omission, Refused, UserError
from afresh.core.plural import counted
from afresh.data.files import DataFile, FileError, check_memory, suffix_of, walk
from afresh.data.limits import parsing
from afresh.data.refusals import refusal_lines
from afresh.data.tables import TABLES
from afresh.data.tables.batches import read_tables
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.numbers import Floats, numbers_of
from afresh.data.tables.roles import shown
from afresh.data.tables.times import COUNTED, seconds_of
from afresh.domains.series.reading.columns import SeriesColumns, series_columns
from afresh.domains.series.reading.inline import arrow_table
from afresh.domains.series.reading.options import ReadingOptions
from afresh.domains.series.reading.regular import Series, regular
from afresh.domains.series.reading.step import Step, most_frequent_step, step_of

LOOKED_AT = 2_000  # rows of a table by which columns are told
DOUBLED = 0.2  # share of times that are doubled, beyond which series are mixed up
CLOCKS = "a clock that is set back repeats an hour: give times in UTC, or with their offset (2024-10-27T02:00:00+01:00)"


@dataclass(frozen=True)
class Reading:
    """The series of a path, with the columns and the step that they have in common."""

    series: list[Series]
    columns: SeriesColumns
    step: Step
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Raw(NamedTuple):
    """Measurements of one series: times (n,) in seconds, values (n, C) and what is known in advance (n, D)."""

    times: Floats
    values: Floats
    known: Floats


@dataclass
class _Measurements:
    """What is known so far of the series of some tables. counted: whether times are numbers of no unit."""

    raw: dict[str, Raw] = field(default_factory=dict)
    counted: bool = False
    notes: list[str] = field(default_factory=list)

    def add(self, table: Any, columns: SeriesColumns, name: str) -> None:
        """Add the measurements of a table to those of each series."""
        times, units = seconds_of(table.column(columns.time).combine_chunks())
        without = int((~np.isfinite(times)).sum())
        if without:
            self.notes.append(Omission(f"{counted(without, 'row')} without a time in {shown(columns.time)} left out"))
        values, known = (
            np.array([numbers_of(table.column(c).combine_chunks()) for c in names]).reshape(len(names), len(times)).T
            for names in (columns.values, columns.known)
        )
        apart = [map(str, table.column(c).to_pylist()) for c in columns.series]
        labels = ["/".join(row) for row in zip(*apart, strict=True)] if apart else [name] * table.num_rows
        names = np.array(labels, dtype=object)
        for label in dict.fromkeys(names.tolist()):
            rows = np.flatnonzero((names == label) & np.isfinite(times))
            if not len(rows):
                continue
            part = Raw(times[rows], values[rows], known[rows])
            before = self.raw.get(label)
            self.raw[label] = part if before is None else Raw(*map(np.concatenate, zip(before, part, strict=True)))
        self.counted |= units[COUNTED] > 0 and units[COUNTED] == units.total()

    def series(self, columns: SeriesColumns, options: ReadingOptions, refused: list[Refused]) -> Reading:
        """Series of equal steps of measurements at any times. Raises UserError if something must be set, and if so many
        times occur several times in a series that several series are mixed up."""
        raw = self.raw
        differences = np.concatenate([np.diff(np.sort(r.times)) for r in raw.values()])
        usual = most_frequent_step(differences, self.counted)
        step = usual if options.step is None else step_of(options.step, self.counted)
        if len(differences) and np.mean(differences == 0) > DOUBLED:
            others = [*columns.texts, *columns.ids]
            hint = f" Columns that may tell them apart: {', '.join(others)}." if others else ""
            raise UserError(
                f"{np.mean(differences == 0):.0%} of the times in {shown(columns.time)} occur several times, as those "
                f"of several series do. Set `data.series` to the columns that tell them apart.{hint}",
                "doubled_times",
            )
        series = [regular(name, r.times, r.values, r.known, step, usual.length) for name, r in raw.items()]
        notes = [
            columns.words(),
            f"a step of {step}" + ("" if str(step) == str(usual) else f" (the times have {usual})"),
        ]
        if columns.ids:
            names = ", ".join(columns.ids)
            notes.append(Omission(f"{names} left out, since they look like identifiers: `data.values` takes them"))
        if columns.texts:
            notes.append(Omission(f"columns of texts left out: {', '.join(columns.texts)}"))
        if unsorted := sum(bool((np.diff(r.times) < 0).any()) for r in raw.values()):
            notes.append(f"times are not in order in {counted(unsorted, 'series', 'series')}, and were sorted")
        if str(step) == str(usual) and (doubled := sum(s.doubled for s in series)):
            notes.append(f"{counted(doubled, 'measurement')} at the time of another one: the mean is taken ({CLOCKS})")
        elif str(step) != str(usual):
            notes.append(f"values are means of what was measured within {step}")
        uneven = (
            float(np.mean(np.abs(differences[differences > 0] / usual.length - 1) > 0.1)) if not step.months else 0.0
        )
        if uneven > 0.01:
            notes.append(
                f"{uneven:.0%} of the differences of times are not {usual}: a value is the mean of the measurements "
                "nearest to its time, and times without any are gaps"
            )
        gaps, size = sum(int(np.isnan(s.values).sum()) for s in series), sum(s.values.size for s in series)
        if gaps:
            notes.append(
                f"{counted(gaps, 'value')} of {size:,} missing: they are kept as gaps, and never learnt as values"
            )
        return Reading(series, columns, step, refused, [*self.notes, *notes])


def read_inline(given: Mapping[str, Sequence[Any]], options: ReadingOptions) -> Reading:
    """The series of a table that is given as columns, read as `read_series` reads files. Where the columns that tell
    series apart are missing, it is one series."""
    if options.series is not None:
        options = options.model_copy(update={"series": tuple(name for name in options.series if name in given)})
    table, found = arrow_table(given), _Measurements()
    columns = columns_of(table, options)
    if isinstance(columns, str):
        raise UserError(f"The table is not a series: {columns}. It has {', '.join(given)}.")
    found.add(table, columns, "")
    if not found.raw:
        raise UserError(f"No row of the table has a time in {shown(columns.time)}.")
    return found.series(columns, options, [])


def read_series(path: Path, options: ReadingOptions) -> Reading:
    """All series of the tables at a path. Raises UserError if there is none, or if something must be set."""
    measured = _Measurements()
    columns: SeriesColumns | None = None
    several = path.is_dir() or sum(suffix_of(f.name) in TABLES for f in walk(path)[0]) > 1

    def add(file: DataFile, batches: Iterator[Any], unusable: Unusable) -> None:
        nonlocal columns
        table = whole_table(batches)
        found = columns_of(table, options)
        if isinstance(found, str):
            raise FileError(found)
        if columns is not None and (found.values, found.known) != (columns.values, columns.known):
            raise FileError(
                f"its columns are {', '.join(found.values)}, and those of the files before it "
                f"{', '.join(columns.values)}: `data.values` names what to take of all"
            )
        columns = columns or found
        measured.add(table, found, file.name if several else "")

    refused, notes, _ = read_tables(path, add)
    measured.notes[:0] = notes
    if columns is None or not measured.raw:
        raise UserError(
            f"No series in {path}: a table with a column of times and columns of numbers "
            f"({', '.join(sorted(TABLES))}). `data.time` and `data.values` name columns.",
            lines=refusal_lines(refused),
        )
    return measured.series(columns, options, refused)


def whole_table(batches: Iterator[Any]) -> Any:
    """A table of Arrow. Raises FileError."""
    import pyarrow

    with parsing("table"):
        parts = list(batches)
    if not parts:
        raise FileError("a table without rows")
    check_memory(sum(p.nbytes for p in parts))
    return pyarrow.Table.from_batches(parts).combine_chunks()


def columns_of(table: Any, options: ReadingOptions) -> SeriesColumns | str:
    head = table.slice(0, LOOKED_AT)
    return series_columns({n: head.column(n).to_pylist() for n in head.column_names}, options)
