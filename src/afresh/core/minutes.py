"""A length of time as people write it: 5, 0.5, 90s, 2m, 1h30m."""

from __future__ import annotations

import re

from afresh.core.errors import UserError

SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}  # by the first letter of the unit
NUMBER = r"\d+(?:\.\d*)?|\.\d+"
PART = re.compile(rf"({NUMBER})\s*(h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)(?![a-z])\s*")
WHOLE = re.compile(rf"(?:{PART.pattern})+")
MOST = 1e9  # minutes, which is about two thousand years
ACCEPTED = "Give minutes as a number (5, 0.5), or with units: 90s, 2m, 1h30m."


def minutes_of(given: float | str, name: str = "minutes") -> float:
    """The minutes that a number, or a text with or without units, stands for: "1h30m" is 90.0.

    Raises UserError, with the `name` of the parameter and what is accepted, for other words and for what is not above
    0."""
    text = str(given).strip().lower()
    if WHOLE.fullmatch(text):
        minutes = sum(float(number) * SECONDS[unit[0]] for number, unit in PART.findall(text)) / 60
    else:
        try:
            minutes = float(text)
        except ValueError:
            raise UserError(f"`{name}={given}` is not a length of time. {ACCEPTED}", "minutes") from None
    if not 0 < minutes < MOST:
        raise UserError(f"`{name}` must be a positive length of time. Given: {given}. {ACCEPTED}", "minutes")
    return minutes
