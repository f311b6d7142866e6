"""The history of one learner: answers in the order of time."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afresh.core import ItemKind, Preview
from afresh.core.safe_text import shell_word
from afresh.data.tables.batches import batches, most_frequent_value
from afresh.data.tables.delimited import Unusable
from afresh.domains.exercises.columns import FIELDS, ROWS, log_columns

# Seconds since the answer before, at which each class of gaps begins but the first: 30 s times powers of four, up to a
# year. Forgetting is about as strong from one to four days as from four to sixteen (Wixted and Ebbesen 1991), so equal
# ratios, and not equal differences, are what a model must tell apart.
EDGES = tuple(30.0 * 4**k for k in range(11))
GAPS = len(EDGES) + 1
FIRST = -1  # the gap before the first answer, and where there are no times
SHOWN = 12  # answers in a preview


def gap_of(seconds: float) -> int:
    """The class of a gap, 0 to GAPS - 1."""
    return bisect_right(EDGES, seconds)


def typical(gap: int) -> float:
    """Seconds in the middle (of logarithms) of a class of gaps."""
    return 60.0 * 4.0 ** (gap - 1) if gap > 0 else 10.0


@dataclass(frozen=True)
class Answer:
    """One answer to an exercise. `gap` is the class of the time since the learner's answer before.

    `time` is in seconds since 1970, None if the log has no times; it is not part of what is compared, since models see
    the class of the gap alone.
    """

    item: str
    correct: bool
    skill: str = ""  # empty: the log names none
    gap: int = FIRST
    time: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class AnswerHistory:
    """The answers of one learner. The first `known` of them are context: they are not predicted."""

    answers: tuple[Answer, ...]
    learner: str = field(default="", compare=False)
    known: int = 0

    def __len__(self) -> int:
        return len(self.answers)


def with_gaps(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """Answers in the order of their times, each with the class of its gap. Equal times keep their order."""
    if any(a.time is None for a in answers):
        return tuple(Answer(a.item, a.correct, a.skill, FIRST, a.time) for a in answers)
    ordered = sorted(answers, key=lambda a: a.time or 0.0)
    out, before = [], None
    for a in ordered:
        assert a.time is not None
        gap = FIRST if before is None else gap_of(a.time - before)
        out.append(Answer(a.item, a.correct, a.skill, gap, a.time))
        before = a.time
    return tuple(out)


def encode(history: AnswerHistory) -> bytes:
    """One line of JSON."""
    rows = [[a.item, int(a.correct), a.skill, a.gap, a.time] for a in history.answers]
    saved = {"learner": history.learner, "known": history.known, "answers": rows}
    return json.dumps(saved, ensure_ascii=False).encode("utf-8", "surrogatepass")


def decode(content: bytes) -> AnswerHistory:
    """Raises ValueError if the content is not a history."""
    try:
        saved = json.loads(content.decode("utf-8", "surrogatepass"))
        answers = tuple(_answer(*row) for row in saved["answers"])
        return AnswerHistory(answers, str(saved.get("learner", "")), int(saved.get("known", 0)))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a history of answers: {error}") from None


def _answer(item: Any, correct: Any, skill: Any = "", gap: Any = FIRST, time: Any = None) -> Answer:
    if correct not in (0, 1) or not FIRST <= int(gap) < GAPS:
        raise ValueError("an answer is [item, 0 or 1, skill, class of the gap, time]")
    return Answer(str(item), bool(correct), str(skill), int(gap), None if time is None else float(time))


def words(history: AnswerHistory) -> str:
    """The last answers, as a person reads them."""
    shown = history.answers[-SHOWN:]
    before = len(history) - len(shown)
    parts = [f"{before:,} before"] if before else []
    return ", ".join([*parts, *(f"{a.item or 'this'} {'right' if a.correct else 'wrong'}" for a in shown)])


def digest(history: AnswerHistory) -> str:
    return hashlib.sha256(encode(history)).hexdigest()


def practise_command(run: str, data: Path | None, options: Mapping[str, Any]) -> str:
    """How a run on answers is used: for a learner of its log, or for a new learner if the log is not there."""
    by_hand = {what: options[what] for what in FIELDS if options.get(what)}

    def column(batch: Any) -> str | None:
        columns = log_columns(batch.slice(0, ROWS).to_pylist(), batch.schema.names, by_hand)
        return None if isinstance(columns, str) else columns["learner"]

    learner = most_frequent_value(data, column, lambda file: batches(file, Unusable(), options.get("query")))
    return f"afresh practise {run} --learner {shell_word(learner)}" if learner else f"afresh practise {run}"


ANSWERS = ItemKind(
    name="answers",
    plural="histories",
    view="text",
    digest=digest,
    describe=lambda h: f"{len(h):,} answers" + (f" of learner {h.learner}" if h.learner else ""),
    previews=lambda histories: [Preview(text=words(h)) for h in histories],
    size=len,
    unit="answers",
    encode=encode,
    decode=decode,
    searched=0,
    use=practise_command,
)
