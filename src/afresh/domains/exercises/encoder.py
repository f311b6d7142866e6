"""Histories to records of tokens and back. An answer is three tokens: the class of the gap, the exercise, and the
outcome, which alone is predicted.

Each skill has outcomes of its own ("right in fractions", "wrong in fractions"), as the inputs of deep knowledge tracing
are pairs of a skill and an outcome (Piech et al. 2015): what a learner can do in a skill is then told by tokens of that
skill, and not by two tokens together, which takes a layer of attention less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from afresh.core import Abilities, Cond, CondSpec, Examples, Item, Space, UserError
from afresh.core.plural import counted
from afresh.core.safe_json import MOST_TOKENS
from afresh.data.encoder_file import FileEncoder, load_encoder
from afresh.domains.exercises.history import ANSWERS, FIRST, GAPS, Answer, AnswerHistory, typical

END = 0
GAP = 1  # id of the gap before the first answer; the classes follow
OUTCOME = GAP + 1 + GAPS  # ids of wrong and right in a skill that training does not know; those of the skills follow
WIDTH = 3  # tokens of an answer
OWN = 1_000  # exercises that are skills of their own, where the log names none; more share one pair of outcomes
OTHER = ""  # the name of what training does not know
START = 946_684_800.0  # 2000-01-01, from which written histories count


@dataclass(frozen=True, kw_only=True)
class AnswerEncoder(FileEncoder):
    """`items` and `skills` are those that training knows; others share one token each."""

    format: Literal["afresh.exercises"] = "afresh.exercises"
    version: Literal[1] = 1
    context: Annotated[int, Field(ge=8, le=MOST_TOKENS)]
    skills: tuple[str, ...]
    items: tuple[str, ...]
    skill_of: tuple[int, ...]  # of each item: the index of its skill, -1 for none
    rate: tuple[float, ...]  # of each item: its share of right answers in training
    count: tuple[int, ...]  # of each item: its answers in training
    columns: dict[str, str]
    notes: tuple[str, ...]
    kind = ANSWERS
    abilities = Abilities()
    conds: ClassVar[CondSpec] = {}
    suffix = ".csv"

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """What has outcomes of its own: the skills; without them, the exercises if they are not too many."""
        return self.skills or (self.items if len(self.items) <= OWN else ())

    @cached_property
    def group_ids(self) -> dict[str, int]:
        """Numbers from 1 on; 0 is what training does not know."""
        return {name: i for i, name in enumerate(self.groups, 1)}

    @property
    def first_group(self) -> int:
        """The id of an exercise that training does not know, of a skill that it does not know either; those of the
        groups follow, each for unknown exercises of it."""
        return OUTCOME + 2 * (1 + len(self.groups))

    @property
    def first_item(self) -> int:
        """The id of the first exercise that training knows."""
        return self.first_group + 1 + len(self.groups)

    @cached_property
    def item_ids(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.items, self.first_item)}

    @property
    def answers(self) -> int:
        """Answers in a window."""
        return (self.context + 1) // WIDTH

    @property
    def space(self) -> Space:
        size = self.first_item + len(self.items)
        return Space("tokens", (self.context,), (size,), {"end": END}, stream=True, records=True)

    @property
    def settled(self) -> Mapping[str, Any]:
        return self.columns

    def group(self, item: str, skill: str) -> int:
        """The number of the skill, or of an exercise that is one."""
        return self.group_ids.get(skill if self.skills else item, 0)

    def question(self, item: str, skill: str = "", gap: int = FIRST) -> list[int]:
        """The tokens of an exercise before its outcome."""
        return [GAP + 1 + gap, self.item_ids.get(item, self.first_group + self.group(item, skill))]

    def outcome(self, item: str, skill: str, correct: bool) -> int:
        """The token of an outcome. That of `right` follows that of `wrong`."""
        return OUTCOME + 2 * self.group(item, skill) + correct

    def tokens(self, answers: Sequence[Answer]) -> list[int]:
        """The tokens of answers, outcomes included."""
        out: list[int] = []
        for a in answers:
            out += [*self.question(a.item, a.skill, a.gap), self.outcome(a.item, a.skill, a.correct)]
        return out

    def windows(self, history: AnswerHistory) -> list[tuple[int, int, int]]:
        """(begin, end, first that is predicted) of each window, in answers.

        Windows overlap by half, so that every answer but those of the first half of a history is predicted from at
        least half a window before it, and each is predicted once.
        """
        n, size = len(history), self.answers
        out = [(0, min(n, size), history.known)]
        while out[-1][1] < n:
            end = min(n, out[-1][1] + (size + 1) // 2)
            out.append((end - size, end, max(history.known, out[-1][1])))
        return [(a, b, c) for a, b, c in out if c < b]

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (total,) int32: the answers of each window of each history, and the mask of the outcomes to predict.

        Raises UserError for an invalid history.
        """
        rows: list[list[int]] = []
        masks: list[np.ndarray[Any, np.dtype[np.bool_]]] = []
        for item in items:
            if not isinstance(item.value, AnswerHistory):
                raise UserError(f"{item.source or 'An item'} is not a history of answers.")
            ids = self.tokens(item.value.answers)
            for begin, end, first in self.windows(item.value):
                rows.append(ids[begin * WIDTH : end * WIDTH])
                masks.append(np.zeros(len(rows[-1]), dtype=bool))
                masks[-1][(first - begin) * WIDTH + WIDTH - 1 :: WIDTH] = True
        bounds = torch.zeros(len(rows) + 1, dtype=torch.int64)
        bounds[1:] = torch.tensor([len(r) for r in rows], dtype=torch.int64).cumsum(0)
        x = torch.from_numpy(np.array([i for r in rows for i in r], dtype=np.int32))
        mask = torch.from_numpy(np.concatenate(masks) if masks else np.zeros(0, dtype=bool))
        size = sum(len(ANSWERS.encode(i.value)) for i in items)
        return Examples(x, Cond(len(rows)), bounds=bounds, bytes=size, mask=mask)

    def decode(self, x: Tensor) -> list[AnswerHistory]:
        """Ids (B, T), or one row (T,), to histories, each up to the first token that is out of place. A row may begin
        with an outcome, as what a model draws does: its exercise is that of the request and stays unnamed."""
        return [AnswerHistory(tuple(self._answers(row))) for row in (x[None] if x.dim() == 1 else x).tolist()]

    def _answers(self, row: Sequence[int]) -> list[Answer]:
        out: list[Answer] = []
        at = 0
        if row and OUTCOME <= row[0] < self.first_group:
            out.append(Answer("", bool((row[0] - OUTCOME) % 2)))
            at = 1
        while at + WIDTH <= len(row):
            gap, item, outcome = row[at : at + WIDTH]
            fits = GAP <= gap < OUTCOME <= outcome < self.first_group <= item < self.space.vocab[0]
            if not fits:
                break
            group = (outcome - OUTCOME) // 2
            skill = self.groups[group - 1] if self.skills and group else ""
            name = self.items[item - self.first_item] if item >= self.first_item else OTHER
            out.append(Answer(name, bool((outcome - OUTCOME) % 2), skill, gap - GAP - 1))
            at += WIDTH
        return out

    def valid(self, value: Any) -> bool:
        """Whether the value is a history of at least one answer."""
        return isinstance(value, AnswerHistory) and len(value) > 0

    def content(self, value: Any, name: str) -> bytes:
        """A table with times that have the gaps of the history."""
        return _csv(value, value.learner or name).encode()


def _csv(history: AnswerHistory, learner: str) -> str:
    import csv
    import io
    from datetime import UTC, datetime

    timed = any(a.gap != FIRST for a in history.answers)
    skilled = any(a.skill for a in history.answers)
    out = io.StringIO(newline="")
    rows = csv.writer(out)
    rows.writerow(["learner", "item", *(["skill"] if skilled else []), "correct", *(["time"] if timed else [])])
    time = START
    for a in history.answers:
        time += 0 if a.gap == FIRST else typical(a.gap)
        shown = datetime.fromtimestamp(time, UTC).isoformat()
        rows.writerow([learner, a.item, *([a.skill] if skilled else []), int(a.correct), *([shown] if timed else [])])
    return out.getvalue()


def fit_answers(
    items: Sequence[Item], context: int, least: int, columns: Mapping[str, str], most: int
) -> AnswerEncoder:
    """The exercises with at least `least` answers, at most the `most` frequent of them, and the skills.

    Raises UserError without an answer to learn from, or if all are right or all wrong.
    """
    counts: Counter[str] = Counter()
    right: Counter[str] = Counter()
    skills: Counter[str] = Counter()
    skill_of: dict[str, Counter[str]] = {}
    for item in items:
        for a in item.value.answers:
            counts[a.item] += 1
            right[a.item] += a.correct
            if a.skill:
                skills[a.skill] += 1
                skill_of.setdefault(a.item, Counter())[a.skill] += 1
    total = counts.total()
    if not total:
        raise UserError("No answer to learn from: the training split is empty.")
    if right.total() in (0, total):
        what = "right" if right.total() else "wrong"
        raise UserError(f"All {total:,} answers are {what}: there is nothing to tell apart. Give a log with both.")
    known = sorted(name for name, n in counts.most_common(most) if n >= least)
    names = tuple(sorted(skills))
    place = {name: i for i, name in enumerate(names)}
    several = sum(len(c) > 1 for c in skill_of.values())
    notes = [
        f"{counted(len(known), 'exercise')} of {counted(len(names), 'skill')}, as {WIDTH} tokens an answer: "
        f"a window has {(context + 1) // WIDTH:,} answers, "
        "and longer histories are cut into windows that overlap by half"
    ]
    if rare := len(counts) - len(known):
        share = sum(n for name, n in counts.items() if name not in set(known)) / total
        notes.append(
            f"{counted(rare, 'exercise')} with fewer than {least} answers ({share:.1%} of all) share one token"
        )
    if several:
        notes.append(f"{counted(several, 'exercise')} with more than one skill: each answer has that of its row")
    return AnswerEncoder(
        context=context,
        skills=names,
        items=tuple(known),
        skill_of=tuple(place[skill_of[i].most_common(1)[0][0]] if i in skill_of else -1 for i in known),
        rate=tuple(right[i] / counts[i] for i in known),
        count=tuple(counts[i] for i in known),
        columns=dict(columns),
        notes=tuple(notes),
    )


def load_answers(folder: Path) -> AnswerEncoder:
    """Load an encoder. Raises UserError if the file is missing, damaged, of another version or has unknown fields."""
    s = load_encoder(folder, AnswerEncoder, "answers")
    if not len(s.items) == len(s.skill_of) == len(s.rate) == len(s.count):
        raise UserError(f"{folder} is damaged: its lists of exercises have different lengths.", "damaged")
    if any(not -1 <= i < len(s.skills) for i in s.skill_of):
        raise UserError(f"{folder} is damaged: an exercise has a skill that there is not.", "damaged")
    return s
