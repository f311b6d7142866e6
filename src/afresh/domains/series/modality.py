"""Series in tables with a column of times: each window of a context and a horizon is an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afresh.core import Corpus, Item, Omission, Part, Sniff, UserError
from afresh.data.encoder_file import load_encoder
from afresh.data.files import FileError, describes_data, suffix_of, walk
from afresh.data.tables import SUFFIXES
from afresh.data.tables.numbers import as_number
from afresh.data.tables.roles import counts_time, plain_name, shown
from afresh.data.tables.rows import read_head
from afresh.domains.series.encoder import BESIDE, MOST_DIGITS, TOLD, SeriesEncoder
from afresh.domains.series.kind import SERIES
from afresh.domains.series.known import Layout
from afresh.domains.series.reading.columns import LEAST, is_series, series_columns
from afresh.domains.series.reading.options import ReadingOptions
from afresh.domains.series.reading.read import Reading, read_series
from afresh.domains.series.reading.step import cycles
from afresh.domains.series.windows import MOST_BYTES, default_context, default_horizon, items_of

CERTAIN = 0.9
COUNTED = 0.55  # as certain as that it is a table


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
            return _counted(table) or Sniff(0.0, columns)
        if not is_series(table, columns):
            return Sniff(
                0.0, f"the times in {shown(columns.time)} are not sorted and of equal steps, or there are texts"
            )
    except (FileError, UserError) as error:
        return Sniff(0.0, str(error))
    others = sum(not describes_data(f.name) for f in files) - len(tables)
    return Sniff(CERTAIN * len(tables) / (len(tables) + max(0, others)), columns.words(), columns=1)


def _counted(table: Mapping[str, Sequence[Any]]) -> Sniff | None:
    """What is said of a table in which a column counts years or other steps, one in each row: its name does not say for
    certain that it holds times, so that it has to be asked for."""
    for name, values in table.items():
        numbers = np.array([as_number(v) for v in values], np.float64)
        steps = np.diff(numbers)
        if counts_time(plain_name(name)) and len(steps) >= LEAST and (steps > 0).all() and len(np.unique(steps)) == 1:
            columns = series_columns(table, ReadingOptions(time=name))
            if not isinstance(columns, str):
                return Sniff(COUNTED, columns.words(), settings={"time": name})
    return None


SMALL = 1e-12
ZEROS = 0.01  # share of values that are 0 from which a column that has none below it cannot have any
FLOOR = "never below 0, nor is what is forecast: {}. If a column can be: `data.below_zero={}`"
SAME = 0.999  # correlation from which one column says what another does


class SeriesOptions(ReadingOptions):
    """How series are read, and what a model is told of them."""

    context: int | None = Field(
        None, ge=1, le=8192, description="steps before that a model is told; None: by the period and the length"
    )
    horizon: int | None = Field(None, ge=1, le=8192, description="steps that are forecast; None: two periods")
    period: int | None = Field(
        None, ge=1, le=8192, description="steps of a season; None: by the step, a day of hours, a week of days"
    )
    held: int | None = Field(
        None, ge=1, description="steps at the end that are held out, at least one horizon; None: a tenth"
    )
    cycles: tuple[Literal["day", "week", "year"], ...] | None = Field(
        None, description="cycles of the calendar that a model is told: day, week, year; None: those that are supported"
    )
    below_zero: tuple[str, ...] | None = Field(
        None, description="columns that may go below 0, though they never do in the data: no floor of counts for them"
    )
    counted: bool | None = Field(None, description="whether times are numbers of no unit; None: by the table")


class SeriesModality:
    """Tables with a column of times and columns of numbers, alone or in a folder with one file for each series."""

    name = "series"
    kind = SERIES
    options = SeriesOptions

    sniff = staticmethod(recognise)

    def read(self, path: Path, options: SeriesOptions) -> Corpus:
        """An Item for each window. Raises UserError if there is none, or for data for which something must be set."""
        reading = usable(read_series(path, options))
        series = reading.series
        longest = max(s.length for s in series)
        step = reading.step
        period = options.period or min(step.period, max(1, longest // 4))
        horizon = options.horizon or default_horizon(period, longest)
        context = options.context or default_context(period, horizon, longest)
        names = cycles(step, longest) if options.cycles is None else options.cycles
        channels = len(reading.columns.values)
        layout = Layout(channels, len(reading.columns.known) + 2 * len(names), context, horizon, period)
        row = 4 * layout.length * (layout.rows + layout.extra + channels)  # bytes of a window
        stride = max(1, -(-sum(s.length for s in series) * row // MOST_BYTES))  # all of them stay within MOST_BYTES
        items = list(items_of(series, context, horizon, names, stride, options.held))
        notes = [
            *reading.notes,
            *leaks(reading),
            f"windows of {context:,} steps and a horizon of {horizon:,}, with a period of {period:,}"
            + (f", every {stride:,} steps to keep them in memory" if stride > 1 else ""),
        ]
        short = [s for s in series if s.length < layout.length]
        if short:
            notes.append(Omission(f"{len(short):,} of {len(series):,} series left out: shorter than a window"))
        settled = {
            "time": reading.columns.time,
            "values": reading.columns.values,
            "series": reading.columns.series,
            "known": reading.columns.known,
            "step": str(step),
            "counted": step.counted,
            "context": context,
            "horizon": horizon,
            "period": period,
            "cycles": tuple(names),
        }
        return Corpus(items, list(reading.refused), notes, settled=settled)

    def fit(self, items: Sequence[Item], options: SeriesOptions) -> SeriesEncoder:
        """Fit means and deviations to the training windows. Raises UserError if there are none."""
        if not items:
            raise UserError("No window to train on: the training split is empty.")
        chosen = options.model_dump(mode="json", exclude_none=True)
        mean, std = moments([i.value for i in items])
        known = [moments([i.images["known"] for i in items])] if len(items[0].images.get("known", ())) else []
        names = chosen.get("known", [])
        scales = {n: (float(m), float(s)) for n, m, s in zip(names, *known[0], strict=True)} if known else {}
        length = np.shape(items[0].value)[1]
        horizon = chosen.get("horizon") or default_horizon(1, length)
        columns = tuple(chosen.get("values") or [f"column {i}" for i in range(len(mean))])
        digits, floors = digits_and_floors([i.value for i in items])
        floors = [None if c in (options.below_zero or ()) else f for c, f in zip(columns, floors, strict=True)]
        counts = [c for c, f in zip(columns, floors, strict=True) if f is not None]
        encoder = SeriesEncoder(
            columns=columns,
            digits=tuple(digits),
            floors=tuple(floors),
            notes=(FLOOR.format(", ".join(counts), counts[0]),) if counts else (),
            step=chosen.get("step") or "1",
            counted=chosen.get("counted", True),
            context=length - horizon,
            horizon=horizon,
            period=chosen.get("period") or 1,
            cycles=tuple(chosen.get("cycles") or ()),
            known=scales,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            conds={},
            options=chosen,
        )
        layout = encoder.layout
        conds = {TOLD: Part("aligned", shape=(layout.rows, length), persists=True, scaled=True)}
        if layout.extra:
            conds[BESIDE] = Part("aligned", shape=(layout.extra, length))
        return replace(encoder, conds=conds)

    def load(self, folder: Path) -> SeriesEncoder:
        return load_encoder(folder, SeriesEncoder, "series")


MODALITY = SeriesModality()


def moments(windows: Sequence[Any]) -> tuple[Any, Any]:
    """Mean and deviation of each row of windows (C, L), without missing values."""
    count = total = squares = np.zeros(len(windows[0]))
    for w in windows:
        there = np.isfinite(w)
        value = np.where(there, w, 0).astype(np.float64)
        count, total, squares = count + there.sum(1), total + value.sum(1), squares + np.square(value).sum(1)
    mean = total / np.maximum(count, 1)
    # A second pass would be exact; float64 sums of float32 values lose nothing that counts here.
    std = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    return mean, np.where(std > SMALL, std, 1.0)


def digits_and_floors(windows: Sequence[Any]) -> tuple[list[int | None], list[float | None]]:
    """Of each row of windows (C, L): the digits after the point, None for more than float32 holds; and 0 for a row of
    counts, or one that often is 0 and never less, else None."""
    digits: list[int | None] = []
    floors: list[float | None] = []
    for row in zip(*windows, strict=True):
        values = np.concatenate(row).astype(np.float32)
        values = values[np.isfinite(values)]
        exact = values.astype(str).astype(np.float64)
        places = (d for d in range(MOST_DIGITS + 1) if (np.round(exact, d) == exact).all())
        digits.append(next(places, None) if len(values) else None)
        positive = len(values) > 0 and values.min() >= 0
        floors.append(0.0 if positive and (digits[-1] == 0 or np.mean(values == 0) >= ZEROS) else None)
    return digits, floors


def leaks(reading: Reading) -> list[str]:
    """A note on each column known in advance that says what is to be forecast, up to a scale."""
    out = []
    for d, name in enumerate(reading.columns.known):
        for c, column in enumerate(reading.columns.values):
            pairs = np.concatenate([np.stack([s.known[d], s.values[c]]) for s in reading.series], 1).astype(np.float64)
            pairs = pairs[:, np.isfinite(pairs).all(0)]
            if pairs.shape[1] > 2 and pairs.std(1).min() > 0 and abs(np.asarray(np.corrcoef(pairs))[0, 1]) > SAME:
                out.append(
                    f"{name}, which is known in advance, says the same as {column}: if it is only known afterwards, "
                    "leave it out of `data.known`"
                )
    return out


def usable(reading: Reading) -> Reading:
    """The reading without columns that say nothing: those that are all missing, or constant. Raises UserError if none
    is left, or if such a column was named."""
    empty, constant = [], []
    for number, name in enumerate(reading.columns.values):
        values = np.concatenate([s.values[number] for s in reading.series])
        values = values[np.isfinite(values)]
        if not len(values):
            empty.append(name)
        elif values.min() == values.max():
            constant.append(name)
    gone = [*empty, *constant]
    if not gone:
        return reading
    left = [i for i, n in enumerate(reading.columns.values) if n not in gone]
    why = "; ".join(
        f"{', '.join(names)}: {what}"
        for names, what in ((empty, "no value at all"), (constant, "always the same"))
        if names
    )
    if not left:
        raise UserError(
            f"No column has anything to forecast ({why}). Set `data.values` to columns of numbers that vary."
        )
    columns = replace(reading.columns, values=tuple(reading.columns.values[i] for i in left))
    series = [replace(s, values=s.values[left]) for s in reading.series]
    return replace(
        reading, series=series, columns=columns, notes=[*reading.notes, Omission(f"columns left out: {why}")]
    )
