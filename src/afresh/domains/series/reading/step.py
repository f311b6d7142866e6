"""The step of a series: a number of seconds, of calendar months, or of a count that is not a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError

Floats = NDArray[np.float64]
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
WEEK = 7 * DAY
MONDAY = 4 * DAY  # 5 January 1970, where weeks begin
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SEASONS = {"day": DAY, "week": WEEK, "year": 52 * WEEK}  # of which the last keeps the day of the week
SECONDS = {"s": 1.0, "min": MINUTE, "h": HOUR, "D": DAY, "W": WEEK}
MONTHS = {"M": 1, "Q": 3, "Y": 12}
ACCEPTED = "a number and one of s, min, h, D, W, M, Q, Y, as 15min, 1h or 1M"


@dataclass(frozen=True)
class Step:
    """`seconds` between values, or `months` of the calendar. `counted`: times are numbers of no unit, and so is
    `seconds`."""

    seconds: float = 0.0
    months: int = 0
    counted: bool = False

    def __str__(self) -> str:
        if self.months:
            return next(f"{self.months // n}{unit}" for unit, n in reversed(MONTHS.items()) if self.months % n == 0)
        if self.counted:
            return f"{self.seconds:g}"
        for unit, size in reversed(SECONDS.items()):
            if self.seconds % size == 0:
                return f"{self.seconds / size:g}{unit}"
        return f"{self.seconds:g}s"

    @property
    def length(self) -> float:
        """Seconds, of a month on average."""
        return self.months * 365.2425 * DAY / 12 if self.months else self.seconds

    def places(self, times: Floats) -> Floats:
        """Times (n,) in steps since 1970 (since 0 of a count); whole numbers of months for months."""
        if self.months:
            stamps = np.asarray(times).astype("datetime64[s]").astype("datetime64[M]")
            return np.floor(stamps.astype(np.int64).astype(np.float64) / self.months)
        return np.asarray(times / self.seconds)

    def times(self, places: Floats) -> Floats:
        """Seconds of places (n,); the beginnings of months."""
        if not self.months:
            return np.asarray(places * self.seconds)
        months = np.round(places).astype(np.int64) * self.months
        stamps = months.astype("datetime64[M]").astype("datetime64[s]").astype(np.int64)
        return stamps.astype(np.float64)

    @property
    def seasons(self) -> dict[str, int]:
        """Steps of each season by its name: the day and the week of what is measured within days, the week and 52 weeks
        of days, the year of weeks, months and quarters."""
        if self.counted:
            return {}
        if self.months:
            return {"year": 12 // self.months} if self.months < 12 else {}
        return {name: round(length / self.seconds) for name, length in SEASONS.items() if 2 * self.seconds <= length}

    @property
    def period(self) -> int:
        """Steps of the season that is looked for first, the shortest; 1 if there is none."""
        return next(iter(self.seasons.values()), 1)


def step_of(text: str, counted: bool) -> Step:
    """The step that a text says. Raises UserError for another text."""
    m = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    number = float(m[1]) if m else 0.0
    if m and number > 0:
        if counted and not m[2]:
            return Step(number, counted=True)
        if not counted and m[2] in SECONDS:
            return Step(number * SECONDS[m[2]])
        if not counted and m[2] in MONTHS and number.is_integer():
            return Step(months=int(number) * MONTHS[m[2]])
    accepted = "a number, since its times are numbers of no unit" if counted else ACCEPTED
    raise UserError(f"`data.step` is {accepted}. Given: {text!r}.")


def most_frequent_step(differences: Floats, counted: bool) -> Step:
    """The step by the positive differences (n,) of neighbouring times: the most frequent one, or months if most are as
    long as months are. Raises UserError without any."""
    found = differences[differences > 0]
    if not len(found):
        raise UserError(
            "All times are the same, so that there is no step. Set `data.time` to the column of times, and "
            "`data.series` to the column that tells series apart."
        )
    if not counted:
        for months, low, high in ((12, 365, 366), (3, 90, 92), (1, 28, 31)):
            if np.mean((found >= low * DAY) & (found <= high * DAY)) > 0.5:
                return Step(months=months)
    rounded = found if counted else np.maximum(np.round(found), np.where(found < 1, np.round(found, 6), 1))
    (value, _), *_ = Counter(rounded.tolist()).most_common(1)
    return Step(float(value), counted=counted)


def written_time(seconds: float, counted: bool) -> str:
    """A time as a table has it: 2024-01-31 13:00:00, or a number."""
    if counted:
        return f"{seconds:.10g}"
    moment = EPOCH + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%d %H:%M:%S") + (f".{moment.microsecond:06d}" if moment.microsecond else "")


YEAR = 365.2425 * DAY
CYCLES = {"day": DAY, "week": WEEK, "year": YEAR}  # seconds


def cycles(step: Step, length: int) -> tuple[str, ...]:
    """The cycles of which a series of so many steps has two at least, and at least two steps in each."""
    if step.counted:
        return ()
    return tuple(n for n, s in CYCLES.items() if 2 * step.length <= s and length * step.length >= 2 * s)


def phases(times: Floats, names: Sequence[str]) -> NDArray[np.float32]:
    """(2 cycles, n) of times (n,) in seconds."""
    turns = [2 * np.pi * ((times - (MONDAY if n == "week" else 0)) / CYCLES[n]) for n in names]
    rows = [f(turn) for turn in turns for f in (np.sin, np.cos)]
    return np.stack(rows).astype(np.float32) if rows else np.zeros((0, len(times)), np.float32)
