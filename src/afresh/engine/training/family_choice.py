"""The choice of a family for a budget in minutes, by what each family was measured to reach after how many examples.

Each row of reached.json is one training of this project, scored by a network that was trained on other data: images
by EfficientNet-Lite0, spoken digits by Whisper. Data sets differ in how low a score can be, so families are compared
on one of them: the one most like the user's data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from afresh.core import Space, registry
from afresh.engine.training.plan import Decision, Task, Trial, sized, smallest_trial

TABLE = Path(__file__).with_name("reached.json")
ITEMS = 0.25  # weight of a difference in the number of items, relative to one in the side of the grid
LONG = 240.0  # seconds from which every family is sized in full before one is chosen
FURTHER = 2.0  # doublings beyond the last measurement for which a curve is continued
STEEPEST = 1.5  # the most that a score is assumed to fall per doubling of examples, beyond those measured


class Reached(BaseModel):
    """What a family reached on one data set after a number of examples. A row of reached.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data: str
    timed: bool = Field(description="whether the fields are spectrograms or waves")
    items: int = Field(gt=0, description="training items")
    side: int = Field(gt=0, description="cells of the shorter side of the grid")
    family: str
    examples: int = Field(gt=0, description="examples of all training steps")
    score: float = Field(
        gt=0, description="lower is better: KID x 1000 to held-out images, or the share of words not heard, x 1000"
    )


class DataSet(BaseModel):
    """One data set of the table: the score below which samples are recognisable, as judged by looking at them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    recognisable: float


@dataclass(frozen=True)
class ReachedTable:
    """The contents of reached.json."""

    rows: Sequence[Reached]
    recognisable: Mapping[str, float]  # by data set


def table() -> ReachedTable:
    """The measurements of this version."""
    content = json.loads(TABLE.read_text("utf-8"))
    sets = TypeAdapter(dict[str, DataSet]).validate_python(content["data"])
    rows = TypeAdapter(list[Reached]).validate_python(content["rows"])
    return ReachedTable(rows, {k: v.recognisable for k, v in sets.items()})


@dataclass(frozen=True)
class FamilyCurves:
    """The curves of all families on one data set."""

    data: str
    recognisable: float
    points: Mapping[str, Sequence[tuple[int, float]]]  # family -> (examples, score), by examples

    def expected(self, family: str, examples: int) -> float:
        """The score after so many examples, interpolated between logarithms. Before the first measurement it rises as
        between the first two, by at most STEEPEST per halving; beyond the last one it falls as between the last two,
        for at most FURTHER doublings."""
        points = [(math.log2(n), math.log2(s)) for n, s in self.points[family]]
        x = math.log2(max(1, examples))
        if x >= points[-1][0]:
            (x0, y0), (x1, y1) = points[max(0, len(points) - 2)], points[-1]
            slope = max(0.0, (y0 - y1) / (x1 - x0)) if x1 > x0 else 0.0
            return float(2 ** (y1 - slope * min(FURTHER, x - x1)))
        if x <= points[0][0]:
            (x0, y0), (x1, y1) = points[0], points[min(1, len(points) - 1)]
            slope = (y0 - y1) / (x1 - x0) if x1 > x0 else 0.0
            return float(2 ** (y0 + min(math.log2(STEEPEST), max(0.0, slope)) * (x0 - x)))
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            if x <= x1:
                return float(2 ** (y0 + (y1 - y0) * (x - x0) / (x1 - x0)))
        raise AssertionError("the last point is beyond x")

    def enough(self, family: str) -> int | None:
        """The examples after which the family's samples were recognisable; None if they never were."""
        for (n0, s0), (n1, s1) in zip(self.points[family], self.points[family][1:], strict=False):
            if s0 > self.recognisable >= s1:
                share = math.log(s0 / self.recognisable) / math.log(s0 / s1)
                return round(n0 * (n1 / n0) ** share)
        first = self.points[family][0]
        return first[0] if first[1] <= self.recognisable else None


def curves_for(space: Space, items: int, measured: ReachedTable | None = None) -> FamilyCurves | None:
    """The curves on the data set most like this data: fields on a grid of the same kind, with a similar side and number
    of items. None for other spaces, for which nothing was measured."""
    measured = measured or table()
    if space.kind != "field" or len(space.shape) < 2:
        return None
    side = min(space.shape[1:])
    rows = [r for r in measured.rows if r.timed == space.timed]
    if not rows or len(space.shape) != 3:
        return None

    def distance(r: Reached) -> tuple[float, str]:
        return abs(math.log(r.side / side)) + ITEMS * abs(math.log(r.items / max(1, items))), r.data

    nearest = min(rows, key=distance).data
    points: dict[str, list[tuple[int, float]]] = {}
    for r in sorted((r for r in rows if r.data == nearest), key=lambda r: r.examples):
        points.setdefault(r.family, []).append((r.examples, r.score))
    return FamilyCurves(nearest, measured.recognisable[nearest], points)


def choose(task: Task, curves: FamilyCurves) -> tuple[Trial, list[Decision]]:
    """The family with the lowest expected score in the minutes of the task, with its size.

    In a short budget, families are compared by a few steps of their smallest networks, to save time for training.
    """
    families = [f for f in map(registry.family, curves.points) if f.accepts(task.space) is None]
    tasks = {f.name: replace(task, family=f.for_space(task.space)) for f in families}
    full = {name: sized(t) for name, t in tasks.items()} if task.seconds is None or task.seconds >= LONG else {}
    seen = {name: (full[name] if full else smallest_trial(t)).examples for name, t in tasks.items()}
    scores = {name: curves.expected(name, n) for name, n in seen.items()}
    best = min(scores, key=lambda name: scores[name])
    described = ", ".join(f"{name} {scores[name]:,.0f} after the {n:,} that it would see" for name, n in seen.items())
    reason = f"measured on data like this ({curves.data}; lower is better): {described}"
    return full[best] if full else sized(tasks[best]), [Decision("family", best, reason)]


def shortfall(chosen: Trial, curves: FamilyCurves) -> str | None:
    """What to expect of a family that the user set, if the minutes are too few for it: what would be enough, and which
    family would work now. None if its samples should be recognisable."""
    name, seen, seconds = chosen.task.family.name, chosen.examples, chosen.task.seconds
    if name not in curves.points or seconds is None or curves.expected(name, seen) <= curves.recognisable:
        return None
    enough = curves.enough(name)
    text = f"{name} will see about {seen:,} examples in this time; "
    if enough is None:
        text += f"it was never measured to draw recognisable samples on data like this ({curves.data})."
    else:
        minutes = max(1, math.ceil(seconds / 60 * enough / max(1, seen)))
        text += (
            f"on data like this ({curves.data}) it needed about {enough:,} for samples that can be recognised, which "
            f"takes about {minutes:,} minutes here (`minutes={minutes}`)."
        )
    other, _ = choose(replace(chosen.task, set_family={}), curves)  # settings of one family do not fit another
    family = other.task.family.name
    if family != name and curves.expected(family, other.examples) <= curves.recognisable:
        text += f" In the time given, {family} draws recognisable samples (`family={family}`)."
    return text
