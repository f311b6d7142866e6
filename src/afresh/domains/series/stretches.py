"""Stretches of series as a run is told them, and draws of what they have not."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Item, UserError
from afresh.domains.series.encoder import SeriesEncoder
from afresh.domains.series.reading.inline import TableSource, words_of
from afresh.domains.series.reading.options import ReadingOptions
from afresh.domains.series.reading.read import Reading, read_inline, read_series
from afresh.domains.series.reading.regular import Series
from afresh.domains.series.reading.step import phases
from afresh.runs.run import Run

Array = NDArray[np.float32]


def series_encoder(run: Run) -> SeriesEncoder:
    """Raises UserError for a run on other data."""
    if not isinstance(run.encoder, SeriesEncoder):
        raise UserError(f"{run.path} was not trained on series. Train on a table with a column of times.", "not_series")
    return run.encoder


def read_like(encoder: SeriesEncoder, source: TableSource) -> Reading:
    """The series of a table, read as the training data was. Raises UserError if it lacks a column."""
    options = {k: v for k, v in encoder.settled.items() if k in ReadingOptions.model_fields and v}
    try:
        if isinstance(source, Mapping):
            return read_inline(source, ReadingOptions(**options))
        return read_series(Path(source), ReadingOptions(**options))
    except UserError as error:
        if error.code != "unknown_column":
            raise
        wanted = [options["time"], *options.get("values", ())] if "time" in options else options.get("values", ())
        raise UserError(
            f"{words_of(source, 'start')} is not like the table that the run learnt from, which had "
            f"{', '.join(wanted)}. Give one with these columns, or train on this one. It has: "
            f"{error.args[0].partition('columns are: ')[2]}",
            "unknown_column",
        ) from None


@dataclass(frozen=True)
class Stretch:
    """What is known of S stretches as long as a window: values (S, C, L) with NaN where they are not, columns known in
    advance (S, D, L), and phases of the calendar (S, 2 cycles, L). C are the columns of the data."""

    values: Array
    known: Array
    calendar: Array

    def repeat(self, n: int) -> Stretch:
        """Every stretch n times: a a b b."""
        return Stretch(self.values.repeat(n, 0), self.known.repeat(n, 0), self.calendar.repeat(n, 0))


def stretches(encoder: SeriesEncoder, series: Sequence[Series], starts: Sequence[int]) -> Stretch:
    """One of each series from its own start, which may lie before its beginning; what lies outside is not known."""
    length, cycles = encoder.layout.length, encoder.cycles
    values = [part(s.values, a, a + length) for s, a in zip(series, starts, strict=True)]
    known = [part(s.known, a, a + length) for s, a in zip(series, starts, strict=True)]
    calendar = [phases(s.times(a, a + length), cycles) for s, a in zip(series, starts, strict=True)]
    return Stretch(np.stack(values), np.stack(known), np.stack(calendar))


def part(values: Array, start: int, stop: int) -> Array:
    """values[:, start:stop], NaN outside."""
    out = np.full((len(values), stop - start), np.nan, np.float32)
    first, last = max(start, 0), min(stop, values.shape[1])
    if first < last:
        out[:, first - start : last - start] = values[:, first:last]
    return out


def draw_missing(run: Run, stretch: Stretch, asked: NDArray[np.bool_], seed: int, numbers: NDArray[np.int64]) -> Array:
    """One draw of each stretch, (S, C, L) in the units of the data: what is known as it is, and where `asked` (S, C, L)
    what the run draws with the noise of these numbers (S,). Elsewhere it is the mean of the seasons before."""
    encoder = series_encoder(run)
    values, known, calendar = stretch.values, stretch.known, stretch.calendar
    items = [Item(None, "the series", images={"known": k, "calendar": c}) for k, c in zip(known, calendar, strict=True)]
    x = encoder.unit(values)
    there = torch.isfinite(x)
    extra = torch.stack([encoder.extra(i) for i in items])
    _, cond = encoder.told(x, there, torch.from_numpy(np.ascontiguousarray(asked)) & ~there, extra)
    drawn = run.draw(run.modules, cond, seed, run.settings({}), torch.from_numpy(numbers))
    out = encoder.physical(drawn)
    return np.where(np.isfinite(values), values, out)


def table_file(name: str, columns: Mapping[str, Any], format: str) -> dict[str, bytes]:
    """The content of a file of columns of equal length, by its name."""
    import pyarrow
    from pyarrow import csv, parquet

    table = pyarrow.table(dict(columns))
    buffer = io.BytesIO()
    if format == "parquet":
        parquet.write_table(table, buffer)
    else:
        csv.write_csv(table, buffer, csv.WriteOptions(quoting_style="needed"))
    return {f"{name}.{format}": buffer.getvalue()}
