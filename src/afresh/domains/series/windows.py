"""Series to windows of a context and a horizon; the last part in time is held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from afresh.core import Item, UserError
from afresh.core.plural import counted
from afresh.domains.series.reading.regular import Series
from afresh.domains.series.reading.step import phases

MOST_BYTES = 768 << 20  # of all windows of training, with what a model is told of each
HELD, MOST_HELD = 0.1, 256  # share of a series that is held out, and windows of it at most
PERIODS, LEAST_HORIZON, MOST_HORIZON = 2, 8, 96  # of a horizon that is not given
TIMES, SEASONS, MOST_CONTEXT = 4, 14, 1024  # of a context that is not given: horizons, and seasons at least


def default_horizon(period: int, length: int) -> int:
    """Two seasons, at most a tenth of a series."""
    return max(1, min(max(LEAST_HORIZON, PERIODS * period), MOST_HORIZON, length // 10))


def default_context(period: int, horizon: int, length: int) -> int:
    """Four horizons and fourteen seasons, at most three tenths of a series; a whole number of seasons where it can."""
    wanted = min(max(TIMES * horizon, SEASONS * period), MOST_CONTEXT, max(1, 3 * length // 10))
    return max(1, wanted // period * period or wanted)


def held_from(length: int, context: int, horizon: int, held: int | None = None) -> int | None:
    """The first step that is held out, so that `held` are, at least one horizon; None for a series that is too short
    for a window on both sides."""
    first = length - max(horizon, round(HELD * length) if held is None else held)
    return first if first >= context + horizon else None


def items_of(
    series: Sequence[Series],
    context: int,
    horizon: int,
    cycles: Sequence[str],
    stride: int,
    held_steps: int | None = None,
) -> Iterator[Item]:
    """A window for each place to begin at. Training windows end before the first step that is held out, and those held
    out have their horizon after it. Windows in which no value is there are left out.

    Raises UserError if no series is as long as a window, or a single one has none to hold out.
    """
    length = context + horizon
    long = [s for s in series if s.length >= length]
    least = min((s.length for s in series), default=0)
    if not long or (len(series) == 1 and held_from(least, context, horizon, held_steps) is None):
        longest = max((s.length for s in series), default=0)
        need = length if len(series) > 1 else length + horizon
        raise UserError(
            f"{counted(len(series), 'series', 'series')} of {longest:,} steps at most, and a context of {context:,} "
            f"with a horizon of {horizon:,} needs {need:,} or more. Set `data.context` and `data.horizon` lower.",
            "too_short",
        )
    for one in long:
        calendar = phases(one.times(0, one.length), cycles)
        held = held_from(one.length, context, horizon, held_steps)
        parts: list[tuple[Sequence[int], str | None]] = [(range(0, one.length - length + 1, stride), None)]
        if held is not None:
            first, last = held - context, one.length - length
            places = np.linspace(first, last, min(MOST_HELD, last - first + 1)).round().astype(int)
            parts = [(range(held - length, -1, -stride)[::-1], "train"), (sorted({*places.tolist()}), "validation")]
        name = one.name or "series"
        for starts, split in parts:
            for start in starts:
                there = slice(start, start + length)
                values = one.values[:, there]
                if np.isfinite(values).any():
                    told = {"calendar": calendar[:, there], "known": one.known[:, there], "place": (name, start)}
                    group = None if split else name
                    yield Item(values, f"{name}, step {start:,}", split=split, images=told, group=group)
