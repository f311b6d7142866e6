"""Time stamps in seconds, milliseconds, microseconds or nanoseconds, or as dates in text, to seconds since 1970; times
of day to seconds since midnight."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.data.tables.numbers import Floats, as_number, numbers_of_texts, values_of
from afresh.data.tables.spelling import LOOKED_AT, date_seconds, order_of, written_date

# A number is taken in the unit that puts it between 1973 and 2286; smaller ones (days, steps, years) are kept as they
# are, in no unit.
UNITS = (("seconds", 1e8, 1e10, 1.0), ("milliseconds", 1e11, 1e13, 1e3), ("microseconds", 1e14, 1e16, 1e6),
         ("nanoseconds", 1e17, 1e19, 1e9))  # fmt: skip
COUNTED = "counted from a start of its own"
DATES = "dates in text"
DAY = 86_400  # seconds
CLOCK = re.compile(
    r"(?P<hour>\d{1,2})[:h](?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d(?:[.,]\d{1,9})?))?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?:Uhr|h)?"
)


def seconds(values: Sequence[Any]) -> tuple[Floats, Counter[str]]:
    """Seconds of each value, NaN where it is none, and how many were in each unit. Raises nothing.

    Numbers may be given as text. A date without a time zone is taken to be in UTC. Whether 1/2/2026 begins with its day
    is decided by the other dates.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iuf":
        numbers = array.astype(np.float64)
        rest = np.zeros(len(numbers), dtype=bool)
    else:
        numbers = np.array([np.nan if (n := as_number(v)) is None else n for v in values], np.float64)
        rest = np.isnan(numbers)
    out, units = _scaled(numbers)
    texts = np.flatnonzero(rest).tolist()
    order = order_of(d for i in texts[:LOOKED_AT] if isinstance(values[i], str) and (d := written_date(values[i])))
    for i in texts:
        parsed = date_seconds(values[i], order)
        if parsed is not None:
            out[i] = parsed
            units[DATES] += 1
    return out, units


def seconds_of(column: Any) -> tuple[Floats, Counter[str]]:
    """`seconds` of a column of Arrow."""
    numbers: Any = numbers_of_texts(column)
    return seconds(values_of(column) if numbers is None else numbers)


def clock_time(value: Any) -> float | None:
    """Seconds since midnight of a time of day, as 10:37, 10:37:05, 10h37 or 1:05 PM; None if the value is none."""
    if isinstance(value, time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if not isinstance(value, str) or (m := CLOCK.fullmatch(value.strip())) is None:
        return None
    hour = int(m["hour"])
    if m["half"] and not 1 <= hour <= 12:
        return None
    if m["half"]:
        hour = hour % 12 + (12 if m["half"][0] in "Pp" else 0)
    seconds = hour * 3600 + int(m["minute"]) * 60 + float((m["second"] or "0").replace(",", "."))
    return seconds if seconds < DAY else None


def clock_times(column: Any) -> Floats:
    """`clock_time` of a column of Arrow, NaN where none exists."""
    encoded = column.dictionary_encode()
    times = [np.nan if (t := clock_time(v)) is None else t for v in encoded.dictionary.to_pylist()]
    return np.array([*times, np.nan])[encoded.indices.fill_null(len(times)).to_numpy(zero_copy_only=False)]


def times_of(batch: Any, of: Mapping[str, str]) -> tuple[Floats, Counter[str], NDArray[np.bool_]]:
    """Of each row of a log the seconds by its columns of the roles `time` and `clock`, NaN where there are none, how
    many were in each unit, and whether its time of day is missing."""
    if "time" not in of:
        return np.full(batch.num_rows, np.nan), Counter(), np.zeros(batch.num_rows, dtype=bool)
    times, units = seconds_of(batch.column(of["time"]))
    clock = clock_times(batch.column(of["clock"])) if "clock" in of else np.zeros(len(times))
    return times + np.nan_to_num(clock), units, np.isnan(clock)


def _scaled(numbers: Floats) -> tuple[Floats, Counter[str]]:
    out = np.full(len(numbers), np.nan)
    units: Counter[str] = Counter()
    left = np.isfinite(numbers) & (numbers >= 0)
    for name, low, high, factor in UNITS:
        here = left & (numbers >= low) & (numbers < high)
        out[here] = numbers[here] / factor
        units[name] += int(here.sum())
        left &= ~here
    here = left & (numbers < UNITS[0][1])
    out[here] = numbers[here]
    units[COUNTED] += int(here.sum())
    return out, +units
