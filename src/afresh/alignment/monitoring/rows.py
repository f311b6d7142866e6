"""The rows of metrics.jsonl as series of finite numbers, one row a step. Pure functions; files are read elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from afresh.core import UserError

Row = Mapping[str, Any]

WINDOW = 5  # rows: enough that one odd batch is outvoted, few enough to speak up soon


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
        """The step since when `holds` has been true of every value; None where it is not true of the last."""
        return since(self.steps, lambda i: holds(self.values[i]))

    def pairs(self) -> list[tuple[int, float]]:
        return list(zip(self.steps, self.values, strict=True))


def since(steps: Sequence[int], holds: Callable[[int], bool]) -> int | None:
    """The first step of the last unbroken stretch of places where `holds`; None where it does not reach the end."""
    found = None
    for i in reversed(range(len(steps))):  # only as far back as needed: runs have many rows
        if not holds(i):
            break
        found = steps[i]
    return found


def lasting(found: Series, holds: Callable[[float], bool]) -> int | None:
    """The step since when medians have been so; None where the last value, which is what is told, is not so."""
    step = found.smooth().since(holds)
    return step if step is not None and holds(found.values[-1]) else None


def by_step(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row a step, in order; of two values of a name the later counts. Raises UserError for a row without a step."""
    merged: dict[int, dict[str, Any]] = {}
    for i, row in enumerate(rows, 1):
        step = row.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise UserError(f"Row {i} of the metrics has the step {step!r}. Every row is to have one, 0 or more.")
        merged.setdefault(step, {}).update(row)
    return [merged[s] for s in sorted(merged)]


def finite(row: Row, name: str) -> float | None:
    """A value, or None where it is missing or not finite. Raises UserError where it is no number at all."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"At step {row.get('step')} the metrics say {name} is {value!r}. It is to be a number.")
    return float(value) if math.isfinite(value) else None


def series(rows: Sequence[Row], name: str) -> Series:
    """The finite values of `name` in rows of one step each."""
    found = [(row["step"], value) for row in rows if (value := finite(row, name)) is not None]
    return Series(tuple(s for s, _ in found), tuple(v for _, v in found))


def together(rows: Sequence[Row], one: str, other: str) -> list[tuple[int, tuple[float, float]]]:
    """(step, values) of the rows that have a finite value of both."""
    a, b = (dict(series(rows, name).pairs()) for name in (one, other))
    return [(step, (value, b[step])) for step, value in a.items() if step in b]


def change(values: Sequence[float], rows: int) -> tuple[float, float] | None:
    """The mean of the last `rows` values less that of the first, and its standard error from their spread.

    At most half the values are taken on each side; None for fewer than two a side. A trend within a side counts as
    spread.
    """
    k = min(rows, len(values) // 2)
    if k < 2:
        return None
    (first, a), (last, b) = spread(values[:k]), spread(values[-k:])
    return last - first, math.hypot(a, b)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean of at least two values, and its standard error."""
    n = len(values)
    mean = sum(values) / n
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
