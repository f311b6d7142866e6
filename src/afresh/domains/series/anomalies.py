"""How unlikely each value of a series is under forecasts from before it."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.core.verb import FileResult, Line, Table
from afresh.domains.series.calibration import widened, widening_of
from afresh.domains.series.encoder import SeriesEncoder
from afresh.domains.series.reading.inline import TableSource, words_of
from afresh.domains.series.reading.regular import Series
from afresh.domains.series.stretches import Stretch, draw_missing, read_like, series_encoder, stretches
from afresh.domains.series.written import table_file
from afresh.runs.run import Run

Array = NDArray[np.float64]
SPREAD = (0.1587, 0.5, 0.8413)  # quantiles one standard deviation from the median of a normal distribution
SMALL = 1e-9


@dataclass(frozen=True)
class Anomalies(FileResult):
    """Scores of the values of S series, one array (C, T) each, NaN where a value is missing or nothing is before it.

    chances: that a value is as far out as this one or further, on either side. distances: from the median, in spreads.
    """

    encoder: SeriesEncoder
    series: Sequence[Series]
    chances: Sequence[Array]
    distances: Sequence[Array]
    medians: Sequence[Array]
    members: int

    @cached_property
    def ranked(self) -> list[tuple[int, int, int]]:
        """(series, column, step) of all scored values, the most distant first."""
        places = [(s, *map(int, p)) for s, d in enumerate(self.distances) for p in np.argwhere(np.isfinite(d))]
        found = np.array([self.distances[s][c, t] for s, c, t in places])
        return [places[i] for i in np.argsort(-found, kind="stable")]

    def row(self, place: tuple[int, int, int]) -> dict[str, Any]:
        s, c, t = place
        one = self.series[s]
        return {
            "series": one.name,
            "time": one.written(t, t + 1)[0],
            "column": self.encoder.columns[c],
            "value": round(float(one.values[c, t]), 6),
            "median": round(float(self.medians[s][c, t]), 6),
            "distance": round(float(self.distances[s][c, t]), 4),
            "chance": round(float(self.chances[s][c, t]), 4),
        }

    def values(self) -> dict[str, Any]:
        return {"scored": len(self.ranked), "most": [self.row(p) for p in self.ranked[:20]]}

    def lines(self) -> list[Line]:
        found, named = [self.row(p) for p in self.ranked[:10]], any(s.name for s in self.series)
        names = ("series", "time", "column", "value", "median", "distance", "chance")[not named :]
        rows = [[str(row[name]) for name in names] for row in found]
        what = f"{counted(len(self.ranked), 'value')} scored by {self.members:,} futures each in {self.seconds:.1f} s"
        heads = ["expected" if name == "median" else name for name in names]
        return [f"{what}; the most unlikely:", Table(heads, rows, right=tuple(range(len(names) - 4, len(names))))]

    @cached_property
    def written(self) -> dict[str, bytes]:
        """A row for each scored value, in the order of the data."""
        rows = [self.row(p) for p in sorted(self.ranked, key=lambda p: (p[0], p[2], p[1]))]
        names = [n for n in rows[0] if n != "series" or any(s.name for s in self.series)]
        return table_file("anomalies", {n: [r[n] for r in rows] for n in names}, self.format)


def scores(members: Array, value: Array) -> tuple[Array, Array, Array]:
    """The chance, the distance and the median of values (...) under members (M, ...).

    chance: twice the share of (members and the value itself) that are as far out as the value, on its side, at most 1:
    2 (1 + #{m >= y}) / (M + 1) for a value above the median. distance: |y - median| divided by the distance of the
    quantile of one standard deviation on that side from the median, so that it is the number of standard deviations
    where the forecast is normal.
    """
    low, middle, high = np.quantile(members, SPREAD, axis=0)
    above = value >= middle
    out = np.where(above, (members >= value).sum(0), (members <= value).sum(0))
    chance = np.minimum(2 * (1 + out) / (len(members) + 1), 1.0)
    spread = np.where(above, high - middle, middle - low)
    least = SMALL + 1e-3 * np.abs(high - low)
    distance = np.abs(value - middle) / np.maximum(spread, least)
    there = np.isfinite(value)
    return np.where(there, chance, np.nan), np.where(there, distance, np.nan), middle


def anomalies_from(
    run: Run, start: TableSource | None, members: int, ahead: int | None, format: str, seed: int
) -> Anomalies:
    """Read series, and score their values. Raises UserError as `anomalies` does."""
    encoder = series_encoder(run)
    context, horizon = encoder.layout.context, encoder.layout.horizon
    steps, widening = horizon if ahead is None else ahead, widening_of(run)
    if steps > horizon:
        raise UserError(f"`ahead` is at most the horizon of the run, {horizon}. Given: {steps}.")
    source = run.record.data.path if start is None else start
    series = read_like(encoder, source).series
    began, chances, distances, medians = clock.monotonic(), [], [], []
    origins = [range(context, s.length, steps) for s in series]
    total, done = sum(map(len, origins)), 0
    if not total:
        raise UserError(
            f"No series in {words_of(source, 'start')} is longer than the context of {context:,} steps of the run.",
            "too_short",
        )
    for number, one in enumerate(series):
        chance, distance, median = (np.full(one.values.shape, np.nan) for _ in range(3))
        for k, origin in enumerate(origins[number]):
            stop = min(origin + steps, one.length)
            window = stretches(encoder, [one], [origin - context])
            values = window.values.copy()
            values[..., context:] = np.nan
            window = Stretch(values, window.known, window.calendar).repeat(members)
            asked = np.zeros(window.values.shape, bool)
            asked[..., context:] = True
            numbers = (done + k) * members + np.arange(members)
            drawn = draw_missing(run, window, asked, seed, numbers)[..., context : context + stop - origin]
            drawn = drawn if widening is None else widened(drawn, widening)
            found = scores(drawn.astype(np.float64), one.values[:, origin:stop].astype(np.float64))
            for out, part in zip((chance, distance, median), found, strict=True):
                out[:, origin:stop] = part
            at, elapsed = done + k + 1, clock.monotonic() - began
            events.advance(f"origin {at:,} of {total:,}", "anomalies", at, total, elapsed)
        done += len(origins[number])
        chances.append(chance)
        distances.append(distance)
        medians.append(median)
    seconds = clock.monotonic() - began
    return Anomalies(encoder, series, chances, distances, medians, members, seconds=seconds, format=format)
