"""Times of events, as logs have them: numbers since 1970 in whatever unit, or dates and times as text, to seconds."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# The least number that is a time in a unit: no log reaches back to 1973 in milliseconds, or on to the year 5138 in
# seconds, so the magnitude of a number decides.
UNITS = ((1e17, "nanoseconds", 1e9), (1e14, "microseconds", 1e6), (1e11, "milliseconds", 1e3), (0.0, "seconds", 1.0))
TEXT = "dates as text"
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
FORMS = ("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d")  # beside ISO 8601; orders of day and month are not guessed


def moment_of(value: Any) -> tuple[float, str] | None:
    """A time as seconds since 1970, and the form in which it was given ("milliseconds", "dates as text", ...).

    None if it is not a time. A date without a time zone is one of UTC.
    """
    moment = getattr(value, "timestamp", None)
    if callable(moment):
        return float(moment()), TEXT
    if isinstance(value, str):
        text = value.strip()
        if NUMBER.fullmatch(text) is None:
            return _dated(text)
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value) or value < 0:
        return None
    name, per = next((name, per) for least, name, per in UNITS if value >= least)
    return value / per, name


def _dated(text: str) -> tuple[float, str] | None:
    for read in (datetime.fromisoformat, *((lambda t, f=f: datetime.strptime(t, f)) for f in FORMS)):
        try:
            moment = read(text)
        except ValueError:
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp(), TEXT
    return None


def told_forms(forms: Mapping[str, int]) -> list[str]:
    """A note if times came in several forms: `forms` counts each."""
    if len(forms) < 2:
        return []
    counts = ", ".join(f"{n:,} {form}" for form, n in Counter(forms).most_common())
    return [f"times are mixed and were each read in their own form: {counts}"]
