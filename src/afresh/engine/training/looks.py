"""What was seen of a model at the evaluations of its training.

Whether training ends early and which weights are the best is decided by it, so each checkpoint holds it: a run that is
killed and resumed decides the same at the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

from pydantic import Field

from afresh.core.safe_json import MOST_STEPS


class MonitorLook(NamedTuple):
    """One evaluation: its step, the value of a metric, and the standard error of the value. Both may be infinite.
    `parts`: what the value is the mean of, up to a factor, in an order that all evaluations have, lower is better."""

    step: Annotated[int, Field(ge=0, le=MOST_STEPS)]
    value: float
    error: float = 0.0
    parts: tuple[float, ...] = ()


Looks = dict[str, list[MonitorLook]]  # by the metric's name, in order of steps


def looks_until(looks: Looks, step: int) -> Looks:
    """The looks up to a step."""
    return {name: [look for look in seen if look.step <= step] for name, seen in looks.items()}


def add_look(looks: Looks, name: str, look: MonitorLook) -> None:
    """Add a look, in place of any that is not before it."""
    looks[name] = [*looks_until(looks, look.step - 1).get(name, []), look]


def looks_in(rows: Iterable[Mapping[str, float]], name: str, step: int) -> list[MonitorLook]:
    """The looks up to `step` among the rows of metrics.jsonl, for a checkpoint of an earlier version, which holds none.
    Later rows are of steps that are taken again."""
    return [MonitorLook(int(row["step"]), float(row[name])) for row in rows if name in row and row["step"] <= step]
