"""What comes after a series, many times over, also beyond one horizon and with what is known of the future."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.core.verb import FileResult, Line, Table
from afresh.domains.series.calibration import REFERENCE, few_members, widened, widening_of
from afresh.domains.series.encoder import SeriesEncoder
from afresh.domains.series.pictures import Fan, fan_chart
from afresh.domains.series.reading.inline import TableSource, words_of
from afresh.domains.series.reading.regular import Series
from afresh.domains.series.stretches import (
    Array,
    Stretch,
    draw_missing,
    part,
    read_like,
    series_encoder,
    stretches,
    table_file,
)
from afresh.runs.run import Run

QUANTILES = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95)
FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_MEMBERS = 4096  # of a series
MOST_BYTES = 4 << 30  # of the members that are held
AT_ONCE = 1 << 28  # bytes of what the run is told at once
SHOWN = 3  # horizons of the past in a picture


@dataclass(frozen=True)
class Forecast(FileResult):
    """Futures of S series: members (M, S, C, H) in the units of the data. series: as they were read; the first step
    that is forecast is at `ends`. given: (S, C, H), NaN where nothing was given."""

    encoder: SeriesEncoder
    series: Sequence[Series]
    ends: Sequence[int]
    members: Array
    given: Array
    keep: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return self.encoder.columns

    @property
    def notes(self) -> Sequence[str]:
        return few_members(len(self.members))

    @cached_property
    def quantiles(self) -> NDArray[np.float64]:
        """(Q, S, C, H)."""
        return np.quantile(self.members.astype(np.float64), QUANTILES, axis=0)

    def quantile(self, p: float) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.quantiles[QUANTILES.index(p)]
        return found

    def digits(self, values: NDArray[np.float64], more: int = 0) -> NDArray[np.float64]:
        """Values (S, C, H) with the digits of each column."""
        return np.stack([self.encoder.written(values[:, c], c, more) for c in range(len(self.columns))], 1)

    def times(self, number: int) -> list[str]:
        """Those of the steps that are forecast, of one series."""
        end = self.ends[number]
        return self.series[number].written(end, end + self.members.shape[-1])

    def values(self) -> dict[str, Any]:
        members, _, _, horizon = self.members.shape
        mean = self.members.mean(0, dtype=np.float64)
        series = []
        for number, one in enumerate(self.series):
            columns = {
                name: {
                    "mean": rounded(mean[number, c]),
                    **{f"q{p:g}": self.encoder.written(self.quantile(p)[number, c], c).tolist() for p in FAN},
                }
                for c, name in enumerate(self.columns)
            }
            series.append({"series": one.name, "time": self.times(number), "columns": columns})
        return {"members": members, "horizon": horizon, "series": series}

    def lines(self) -> list[Line]:
        members, series, columns, horizon = self.members.shape
        what = f"{counted(columns, 'column')}" + (f" of {counted(series, 'series', 'series')}" if series > 1 else "")
        out: list[Line] = [
            f"{counted(members, 'future')} of {counted(horizon, 'step')} ({self.encoder.step} each) for {what}, "
            f"in {self.seconds:.1f} s"
        ]
        rows = []
        for number, one in list(enumerate(self.series))[:4]:
            times = self.times(number)
            for c, name in list(enumerate(self.columns))[:8]:
                for k in sorted({0, horizon - 1}):
                    ends = (self.quantile(p)[number, c, k] for p in (0.05, 0.5, 0.95))
                    low, median, high = (self.encoder.word(v, c) for v in ends)
                    rows.append([one.name, times[k], name, median, f"{low} to {high}"])
        many = len(self.series) > 1
        heads = ("series", "time", "column", "median", "90% interval")
        out.append(Table(heads if many else heads[1:], rows if many else [r[1:] for r in rows], right=()))
        return out

    @cached_property
    def written(self) -> dict[str, bytes]:
        """The quantiles, a picture, and the members if they are kept."""
        members = table_file("members", self.member_rows(), self.format) if self.keep else {}
        quantiles = table_file("forecast", self.quantile_rows(), self.format)
        return {**quantiles, "forecast.png": self.picture(), **members}

    def quantile_rows(self) -> dict[str, Any]:
        """A row for each series, time and column."""
        _, series, columns, horizon = self.members.shape
        times = [t for n in range(series) for t in self.times(n) for _ in range(columns)]
        order = (0, 2, 1)  # series, steps, columns
        table: dict[str, Any] = {}
        if series > 1 or self.series[0].name:
            table["series"] = [s.name for s in self.series for _ in range(columns * horizon)]
        table |= {"time": times, "column": list(self.columns) * (series * horizon)}
        for p, values in zip(QUANTILES, self.quantiles, strict=True):
            table[f"q{p:g}"] = self.digits(values).transpose(order).ravel()
        table["mean"] = self.digits(self.members.mean(0, dtype=np.float64), 2).transpose(order).ravel()
        return table

    def member_rows(self) -> dict[str, Any]:
        """A row for each member, series and time, with the columns as in the data."""
        members, series, _, horizon = self.members.shape
        times = [t for n in range(series) for t in self.times(n)]
        table: dict[str, Any] = {"member": np.repeat(np.arange(members), series * horizon)}
        if series > 1 or self.series[0].name:
            table["series"] = [s.name for s in self.series for _ in range(horizon)] * members
        table["time"] = times * members
        for c, name in enumerate(self.columns):
            table[name] = self.encoder.written(self.members[:, :, c].ravel(), c)
        return table

    def picture(self) -> bytes:
        """A panel for each column of each series."""
        spread, horizon = np.stack([self.quantile(p) for p in FAN]), self.members.shape[-1]
        fans = []
        for number, (one, end) in enumerate(zip(self.series, self.ends, strict=True)):
            begin = max(0, end - min(end, max(SHOWN * horizon, self.encoder.layout.horizon)))
            later, moments = part(one.values, end, end + horizon), one.written(begin, end + horizon)
            labels = [moments[0], moments[end - begin], moments[-1]]
            for c, name in enumerate(self.columns):
                title = f"{one.name}: {name}" if one.name else name
                truth = later[c] if np.isfinite(later[c]).any() else None
                fans.append(Fan(title, one.values[c, begin:end], spread[:, number, c], labels, truth))
        return fan_chart(fans)


def rounded(values: NDArray[np.float64]) -> list[float]:
    """Values as far as float32 has digits."""
    return [float(f"{v:.7g}") for v in values]


# --------------------------------------------------------------------------- rolling on


def futures(
    run: Run, series: Sequence[Series], ends: Sequence[int], horizon: int, members: int, given: Array, seed: int
) -> Array:
    """What follows step `ends` (S,) of each series, (members, S, C, horizon). Beyond the horizon that was trained, each
    member goes on after what it drew itself. given: (S, C, horizon), NaN where nothing is.

    The noise of member m of series s in stretch k has the number (k S + s) MOST_MEMBERS + m, and of a calibrated run
    REFERENCE members are drawn at least, so that a future does not depend on how many there are.
    """
    widening = widening_of(run)
    drawn = members if widening is None else max(members, REFERENCE)
    encoder = series_encoder(run)
    context, count, columns = encoder.layout.context, len(series), len(encoder.columns)
    size = 4 * drawn * count * columns * (context + horizon)
    if size > MOST_BYTES:
        raise UserError(
            f"{drawn:,} futures of {horizon:,} steps of {count:,} series take {size / 1e9:.3g} GB, more than "
            f"{MOST_BYTES / 1e9:.3g} GB. Ask for fewer members or steps, or fewer series.",
            "too_large",
        )
    rows = max(1, AT_ONCE // (4 * drawn * encoder.layout.length * encoder.layout.rows))
    out = np.empty((drawn, count, columns, horizon), np.float32)
    for begin in range(0, count, rows):
        some = slice(begin, begin + rows)
        out[:, some] = rolled(run, series[some], ends[some], horizon, drawn, given[some], seed, begin, count)
    if widening is None:
        return out
    out = widened(out, widening)[:members]
    return np.ascontiguousarray(np.where(np.isfinite(given), out, encoder.allowed(out)))


def rolled(
    run: Run,
    series: Sequence[Series],
    ends: Sequence[int],
    horizon: int,
    members: int,
    given: Array,
    seed: int,
    begin: int,
    total: int,
) -> Array:
    """`futures` of series from number `begin` of `total` on."""
    encoder = series_encoder(run)
    context, each = encoder.layout.context, encoder.layout.horizon
    count, columns = len(series), len(encoder.columns)
    past = np.stack([part(s.values, e - context, e) for s, e in zip(series, ends, strict=True)]).repeat(members, 0)
    blank = [replace(s, values=np.full_like(s.values, np.nan)) for s in series]
    done: list[Array] = []
    began, rolls = clock.monotonic(), -(-horizon // each)
    for k in range(rolls):
        now = min(each, horizon - k * each)
        later = stretches(encoder, blank, [e + k * each - context for e in ends]).repeat(members)
        values = later.values.copy()
        values[..., :context] = past
        values[..., context : context + now] = given[..., k * each : k * each + now].repeat(members, 0)
        asked = np.zeros(values.shape, bool)
        asked[..., context:] = True
        first = (k * total + begin + np.arange(count)) * MOST_MEMBERS
        numbers = (first[:, None] + np.arange(members)).ravel()
        drawn = draw_missing(run, Stretch(values, later.known, later.calendar), asked, seed, numbers)[..., context:]
        # Columns see only stretches of others that are known as a whole, so that those of which some values are given
        # are drawn first, and the others given them.
        there = np.isfinite(values[..., context : context + now])
        some = there.any(-1, keepdims=True)  # (rows, C, 1)
        if (some & ~there).any() and not some.all():
            values[..., context:] = np.where(some, drawn, values[..., context:])
            drawn = draw_missing(run, Stretch(values, later.known, later.calendar), asked, seed, numbers)[..., context:]
        done.append(drawn[..., :now])
        past = np.concatenate([past, drawn], -1)[..., -context:]
        if rolls > 1:
            events.advance(f"stretch {k + 1:,} of {rolls:,}", "forecast", k + 1, rolls, clock.monotonic() - began)
    out = np.concatenate(done, -1).reshape(count, members, columns, horizon)
    return np.ascontiguousarray(out.swapaxes(0, 1))


def forecast_from(
    run: Run,
    start: TableSource | None,
    horizon: int | None,
    members: int,
    given: TableSource | None,
    keep: bool,
    format: str,
    seed: int,
) -> Forecast:
    """Read series, and say what comes after them. Raises UserError as `forecast` does."""
    encoder = series_encoder(run)
    source = run.record.data.path if start is None else start
    if not isinstance(source, Mapping) and not Path(source).exists():
        raise UserError(f'No {source}. Give the table that is to go on: `start="data.csv"`.', "data_missing")
    series = read_like(encoder, source).series
    steps = horizon or encoder.layout.horizon
    ends = [last_known(s) for s in series]
    conditions = np.full((len(series), len(encoder.columns), steps), np.nan, np.float32)
    if given is not None:
        series, conditions = with_given(encoder, series, ends, given, steps)
    check_known(encoder, series, ends, steps)
    began = clock.monotonic()
    drawn = futures(run, series, ends, steps, members, conditions, seed)
    seconds = clock.monotonic() - began
    return Forecast(encoder, series, ends, drawn, conditions, keep, seconds=seconds, format=format)


def last_known(series: Series) -> int:
    """The step after the last one that has a value. Raises UserError for a series without any."""
    found = np.flatnonzero(np.isfinite(series.values).any(0))
    if not len(found):
        raise UserError(f"The series {series.name} has no value: there is nothing to go on from.")
    return int(found[-1]) + 1


def with_given(
    encoder: SeriesEncoder, series: Sequence[Series], ends: Sequence[int], source: TableSource, steps: int
) -> tuple[list[Series], Array]:
    """The series with columns that are known in advance from a table of the future, and what it says of the others,
    (S, C, steps). Raises UserError if it says nothing of the steps that are forecast."""
    from afresh.domains.series.given import read_given

    out, conditions = [], np.full((len(series), len(encoder.columns), steps), np.nan, np.float32)
    futures_given = read_given(encoder, source, [s.name for s in series])
    used = 0
    for number, (one, end) in enumerate(zip(series, ends, strict=True)):
        future = futures_given.get(one.name)
        if future is None:
            out.append(one)
            continue
        shift = round(future.first - one.first)  # the step of the series at which the table begins
        conditions[number] = part(future.values, end - shift, end - shift + steps)
        known = part(one.known, 0, max(one.length, end + steps))
        later = part(future.known, -shift, known.shape[1] - shift)
        out.append(replace(one, known=np.where(np.isfinite(later), later, known)))
        used += int(np.isfinite(conditions[number]).sum() + np.isfinite(later[:, end:]).sum())
    if not used:
        (first,) = series[0].written(ends[0], ends[0] + 1)
        raise UserError(
            f"{words_of(source, 'given')} says nothing of the {steps:,} steps from {first} on that are forecast. Give "
            f"a table with the column of times {encoder.settled['time']!r}, these times, and the columns that are "
            "known then."
        )
    return out, conditions


def check_known(encoder: SeriesEncoder, series: Sequence[Series], ends: Sequence[int], steps: int) -> None:
    """Raises UserError if a column that is known in advance is not."""
    for one, end in zip(series, ends, strict=True):
        later = part(one.known, end, end + steps)
        lacking = [n for n, row in zip(encoder.known, later, strict=True) if not np.isfinite(row).all()]
        if lacking:
            raise UserError(
                f"The model is told {', '.join(lacking)} in advance, and the table does not say what comes in the "
                f"{steps:,} steps that are forecast. Add rows of the future with empty values, or give them: "
                '`given="future.csv"`.',
                "known_missing",
            )
