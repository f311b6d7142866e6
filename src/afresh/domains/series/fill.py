"""Gaps of series, filled many times over by what a run finds likely between what is known."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.core.verb import FileResult, Line, Table
from afresh.domains.series.calibration import few_members
from afresh.domains.series.encoder import SeriesEncoder
from afresh.domains.series.reading.inline import TableSource, words_of
from afresh.domains.series.reading.regular import Series
from afresh.domains.series.stretches import Array, Stretch, draw_missing, part, read_like, series_encoder, stretches
from afresh.domains.series.written import table_file
from afresh.runs.run import Run

INTERVAL = (0.05, 0.95)
MOST = 1_000_000  # missing values


@dataclass(frozen=True)
class Filled(FileResult):
    """Series with their gaps filled. places: (series, column, step) of each missing value, (N, 3). draws: (members, N)
    in the units of the data."""

    encoder: SeriesEncoder
    series: Sequence[Series]
    places: Any
    draws: Array

    @property
    def notes(self) -> Sequence[str]:
        return few_members(len(self.draws))

    @property
    def mean(self) -> Any:
        return self.draws.mean(0, dtype=np.float64)

    @property
    def interval(self) -> Any:
        """(2, N): the quantiles INTERVAL."""
        return np.quantile(self.draws.astype(np.float64), INTERVAL, axis=0)

    def values(self) -> dict[str, Any]:
        members, count = self.draws.shape
        return {"filled": count, "members": members}

    def lines(self) -> list[Line]:
        members, count = self.draws.shape
        (low, high), word = self.interval, self.encoder.word
        rows = [
            [
                self.time(s, t),
                self.encoder.columns[c],
                word(self.mean[i], c),
                f"{word(low[i], c)} to {word(high[i], c)}",
            ]
            for i, (s, c, t) in enumerate(self.places[:8].tolist())
        ]
        what = f"{counted(count, 'missing value')} filled {counted(members, 'time')} in {self.seconds:.1f} s"
        return [what, Table(("time", "column", "mean", "90% interval"), rows)]

    def time(self, number: int, step: int) -> str:
        return self.series[number].written(step, step + 1)[0]

    @cached_property
    def written(self) -> dict[str, bytes]:
        """The table with its gaps filled by means, and a table of what was filled, with its intervals."""
        filled, gaps = self.filled_rows(), self.gap_rows()
        return {**table_file("filled", filled, self.format), **table_file("gaps", gaps, self.format)}

    def filled_rows(self) -> dict[str, Any]:
        values = [s.values.astype(np.float64) for s in self.series]
        for (s, c, t), mean in zip(self.places.tolist(), self.mean.tolist(), strict=True):
            values[s][c, t] = mean
        table: dict[str, Any] = {}
        if any(s.name for s in self.series):
            table["series"] = [s.name for s in self.series for _ in range(s.length)]
        table["time"] = [t for s in self.series for t in s.written(0, s.length)]
        for c, name in enumerate(self.encoder.columns):
            table[name] = self.encoder.written(np.concatenate([v[c] for v in values]), c)
        return table

    def gap_rows(self) -> dict[str, Any]:
        low, high = self.interval
        table: dict[str, Any] = {}
        if any(s.name for s in self.series):
            table["series"] = [self.series[s].name for s, _, _ in self.places.tolist()]
        table["time"] = [self.time(s, t) for s, _, t in self.places.tolist()]
        table["column"] = [self.encoder.columns[c] for _, c, _ in self.places.tolist()]
        at = list(enumerate(self.places[:, 1].tolist()))
        for name, values in (
            ("mean", self.mean),
            *((f"q{p:g}", v) for p, v in zip(INTERVAL, (low, high), strict=True)),
        ):
            table[name] = [float(self.encoder.written(values[i], c)) for i, c in at]
        return table


def fill_from(run: Run, start: TableSource | None, members: int, format: str, seed: int) -> Filled:
    """Read series, and fill their gaps. Raises UserError as `fill` does."""
    encoder = series_encoder(run)
    source = run.record.data.path if start is None else start
    series = read_like(encoder, source).series
    found = [np.argwhere(np.isnan(s.values)) for s in series]
    places = np.concatenate([np.insert(f, 0, number, 1) for number, f in enumerate(found)])
    if not len(places):
        raise UserError(
            f"Nothing is missing in {words_of(source, 'start')}: every step of every column has a value.",
            "nothing_missing",
        )
    if len(places) > MOST:
        words = words_of(source, "start")
        raise UserError(f"{len(places):,} values are missing in {words}, and at most {MOST:,} are filled at once.")
    began = clock.monotonic()
    draws = []
    for number, one in enumerate(series):
        if len(found[number]):
            draws.append(filled(run, one, members, seed)[:, found[number][:, 0], found[number][:, 1]])
        events.advance(f"series {number + 1:,} of {len(series):,}", "imputation", number + 1, len(series))
    seconds = clock.monotonic() - began
    return Filled(encoder, series, places, np.concatenate(draws, 1), seconds=seconds, format=format)


def filled(run: Run, series: Series, members: int, seed: int) -> Array:
    """Draws of a series without gaps, (members, C, T).

    The first step with a gap is put into the middle of a window, and the gaps from there to three quarters of the
    window are drawn by each member; then the next one, for which these are known. So a long gap is filled from its
    beginning on, and what follows it is known where it lies within the window.
    """
    encoder = series_encoder(run)
    length = encoder.layout.length
    values = np.repeat(series.values[None], members, 0)
    taken = 0
    while (gaps := np.flatnonzero(np.isnan(values[0]).any(0))).size:
        first = int(gaps[0])
        begin = min(max(first - length // 2, 0), max(0, series.length - length))
        stop = min(max(first + 1, begin + 3 * length // 4), series.length)
        if begin + length >= series.length:
            stop = series.length  # nothing is known after this window
        window = stretches(encoder, [series], [begin]).repeat(members)
        now = np.stack([part(v, begin, begin + length) for v in values])
        window = Stretch(now, window.known, window.calendar)
        asked = np.isnan(window.values)
        numbers = taken * members + np.arange(members)
        drawn = draw_missing(run, window, asked, seed, numbers)
        values[:, :, first:stop] = drawn[:, :, first - begin : stop - begin]
        taken += 1
    return values
