"""Times as phases of the day, the week and the year: a sine and a cosine of each that step and length support."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from afresh.domains.series.reading.step import DAY, MONDAY, WEEK, Floats, Step

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
