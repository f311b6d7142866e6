"""The rows of metrics.jsonl as series of finite numbers, one row for each step. Files are read elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from afresh.core import UserError

Row = Mapping[str, Any]

WINDOW = 5  # rows of a running median: robust to single batches, but still quick to react


@dataclass(frozen=True)
class Series:
    """The finite values of one name, in order of steps."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def smooth(self) -> Series:
        """The median of the last WINDOW values up to each."""
        ends = range(1, len(self.values) + 1)
        return Series(self.steps, tuple(median(self.values[max(0, e - WINDOW) : e]) for e in ends))

    def since(self, holds: Callable[[float], bool]) -> int | None:
        """The first step from which on `holds` is true for all values; None if it is not true for the last."""
        return since(self.steps, lambda i: holds(self.values[i]))

    def pairs(self) -> list[tuple[int, float]]:
        return list(zip(self.steps, self.values, strict=True))


def since(steps: Sequence[int], holds: Callable[[int], bool]) -> int | None:
    """The first step from which on `holds` is true for all indices of steps; None if it is not true for the last."""
    start = None
    for i in reversed(range(len(steps))):  # backwards and only as far as necessary, as runs have many rows
        if not holds(i):
            break
        start = steps[i]
    return start


def lasting(values: Series, holds: Callable[[float], bool]) -> int | None:
    """The first step from which on `holds` is true for all running medians; None if it is not for the last value."""
    step = values.smooth().since(holds)
    return step if step is not None and holds(values.values[-1]) else None


def by_step(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row for each step, in order. If a metric has two values, the later counts. Raises UserError for a row without
    a step."""
    merged: dict[int, dict[str, Any]] = {}
    for i, row in enumerate(rows, 1):
        step = row.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise UserError(f"Row {i} of the metrics has the step {step!r}. Every row must have a step of 0 or more.")
        merged.setdefault(step, {}).update(row)
    return [merged[s] for s in sorted(merged)]


def finite(row: Row, name: str) -> float | None:
    """A value, or None if it is missing or not finite. Raises UserError if it is not a number."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"At step {row.get('step')} of the metrics, {name} is {value!r}. It must be a number.")
    return float(value) if math.isfinite(value) else None


def series(rows: Sequence[Row], name: str) -> Series:
    """The finite values of a metric in rows with distinct steps."""
    pairs = [(row["step"], value) for row in rows if (value := finite(row, name)) is not None]
    return Series(tuple(s for s, _ in pairs), tuple(v for _, v in pairs))


def both_finite(rows: Sequence[Row], one: str, other: str) -> list[tuple[int, tuple[float, float]]]:
    """(step, values) of the rows in which both metrics are finite."""
    a, b = (dict(series(rows, name).pairs()) for name in (one, other))
    return [(step, (value, b[step])) for step, value in a.items() if step in b]


def change(values: Sequence[float], rows: int) -> tuple[float, float] | None:
    """The mean of the last `rows` values minus that of the first, and its standard error.

    Each side has at most half of the values; None if it has fewer than two. A trend within a side increases the error.
    """
    k = min(rows, len(values) // 2)
    if k < 2:
        return None
    (first, a), (last, b) = mean_and_error(values[:k]), mean_and_error(values[-k:])
    return last - first, math.hypot(a, b)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean of at least two values, and its standard error."""
    n = len(values)
    mean = sum(values) / n
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
