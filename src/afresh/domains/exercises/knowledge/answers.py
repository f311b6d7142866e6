"""Histories as arrays, for models of knowledge that are not networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from afresh.domains.exercises.history import FIRST, Answer, AnswerHistory, typical

Array = NDArray[np.float64]
Index = NDArray[np.int64]
DAY = 86_400.0


@dataclass(frozen=True)
class Answers:
    """The answers of one learner in the order of time, (T,) each. What training does not know is -1.

    `days` since the answer before: 0 where there are no times. `counted`: which outcomes are to be predicted.
    """

    items: Index
    skills: Index
    right: NDArray[np.bool_]
    days: Array
    counted: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.items)

    def part(self, begin: int, end: int | None = None) -> Answers:
        """The answers from `begin` on, before `end`."""
        return Answers(*(getattr(self, f.name)[begin:end] for f in fields(self)))


# From a learner's answers to the chance that each was right, given those before it, (T,).
Predictor = Callable[[Answers], Array]


def _days(answers: Sequence[Answer]) -> list[float]:
    """Days before each answer: by its time if there is one, otherwise those that are typical for its class of gaps."""
    out, before = [], None
    for a in answers:
        if a.time is not None and before is not None:
            out.append((a.time - before) / DAY)
        else:
            out.append(0.0 if a.gap == FIRST else typical(a.gap) / DAY)
        before = a.time
    return out


def as_answers(history: AnswerHistory, items: dict[str, int], skills: dict[str, int]) -> Answers:
    """A history by the places of exercises and skills; without skills in the log, each exercise is a skill."""
    a = history.answers
    named = [x.skill or x.item for x in a]
    counted = np.ones(len(a), dtype=bool)
    counted[: history.known] = False
    return Answers(
        np.array([items.get(x.item, -1) for x in a], dtype=np.int64),
        np.array([skills.get(name, -1) for name in named], dtype=np.int64),
        np.array([x.correct for x in a], dtype=bool),
        np.array(_days(a)),
        counted,
    )


def tables(histories: Sequence[AnswerHistory]) -> tuple[dict[str, int], dict[str, int]]:
    """The places of all exercises and skills of training."""
    items = sorted({a.item for h in histories for a in h.answers})
    skills = sorted({a.skill or a.item for h in histories for a in h.answers})
    return {n: i for i, n in enumerate(items)}, {n: i for i, n in enumerate(skills)}
