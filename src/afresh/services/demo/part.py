"""One part of the demonstration: its data and training, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afresh.api import Model
from afresh.core import Sound


@dataclass(frozen=True)
class DemoPart:
    """One set of data and how it is learnt. `make` gives a value by label, seed and index; None for tales."""

    name: str
    what: str  # on the terminal
    family: str
    minutes: float
    write: Callable[[Path], None]
    labels: Sequence[str] = ()
    make: Callable[[str, int, int], Any] | None = None
    each: int = 0  # items a label
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoVerdict:
    """One number: what the model reaches, what it means, and what stands beside it."""

    value: str
    meaning: str
    beside: str


@dataclass(frozen=True)
class ShownPart:
    """A part after training: examples by label ("" where there are none), samples, verdicts and times."""

    part: DemoPart
    model: Model
    real: Mapping[str, Sequence[Any]]
    made: Mapping[str, Sequence[Any]]
    verdicts: Sequence[DemoVerdict]
    seconds: Mapping[str, float]  # data, training, samples
    prompts: Sequence[str] = ()  # what tales begin with
    between: Sequence[Any] = ()  # on the way from one drawing to another
    loop: Sound | None = None
