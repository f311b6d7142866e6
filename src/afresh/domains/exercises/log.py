"""Files of a log to one history a learner. Every answer that is not used is counted, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Corpus, Item, Omission, Refused, Sniff, UserError
from afresh.core.plural import counted
from afresh.data.files import DataFile, FileError, suffix_of, walk
from afresh.data.refusals import refusal_lines
from afresh.data.split import split_of_name
from afresh.data.tables import TABLES
from afresh.data.tables.batches import read_tables
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.numbers import id_of, is_number
from afresh.data.tables.roles import check_given, role_words
from afresh.data.tables.rows import read_heads
from afresh.data.tables.times import times_of
from afresh.domains.exercises.columns import FIELDS, is_log, log_columns, outcome_of
from afresh.domains.exercises.history import Answer, AnswerHistory, with_gaps

LOOKED_AT = 500  # rows of a table, to find its columns
NAMED = 5  # reasons in a note
LEAST = 2  # answers of a learner
PARTLY = "partly right; `data.right_from` says from which share of the points it counts as right"


class LogOptions(BaseModel):
    """Which columns are what, and how answers are read. Columns that are not named are found by name and content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learner: str = Field("", description="column of who answered; empty: found by name")
    item: str = Field("", description="column of the exercise; empty: found by name")
    correct: str = Field("", description="column of the outcome; empty: found by name and by its values")
    time: str = Field("", description="column of when; empty: found by name, and the order of rows where there is none")
    clock: str = Field(
        "", description="column of the time of day, if that of when has the day only; empty: by its name and values"
    )
    skill: str = Field("", description="column of the skill of the exercise; empty: found by name")
    right_from: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the points from which an answer is right; None: such are refused",
    )
    query: str | None = Field(None, description="the table of a data base, or one SELECT; None: its only table")

    @property
    def by_hand(self) -> dict[str, str]:
        return {what: column for what in FIELDS if (column := getattr(self, what))}


@dataclass
class Reading:
    """What is read of a log so far: the answers of each learner (on each side of a declared split), and what was seen
    and left out."""

    options: LogOptions
    learners: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    events: set[tuple[Any, ...]] = field(default_factory=set)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # by their description
    left_out: Counter[str] = field(default_factory=Counter)  # reasons
    units: Counter[str] = field(default_factory=Counter)  # of times
    types: dict[str, Counter[str]] = field(default_factory=dict)  # of ids of learners and exercises
    partly: int = 0
    untimed: int = 0
    clockless: int = 0


def recognise(path: Path) -> Sniff:
    """How many of the files are tables of answers, judged by their names and the first rows of the first."""
    files = walk(path)[0]
    ours = [f for f in files if suffix_of(f.name) in TABLES]
    if not any(is_log([row for _, row in head.rows], head.columns) for _, head in read_heads(ours[:1])):
        ours = []
    share = len(ours) / len(files) if files else 0.0
    reason = f"{len(ours):,} of {len(files):,} files are logs of answers to exercises"
    return Sniff(share, reason, columns=3 if share >= 0.5 else 0)  # the learner, the exercise and the outcome


def read_log(path: Path, options: LogOptions) -> Corpus:
    """One Item a learner, whose answers may lie in several files; about 300 bytes of memory an answer.

    Raises UserError if no answer can be used, or if a column that was named is missing.
    """
    reading = Reading(options)

    def add(file: DataFile, batches: Iterator[Any], unusable: Unusable) -> None:
        first, columns = 1, dict[str, str]()
        for batch in batches:
            columns = columns or columns_of_batch(batch, options)
            reading.columns[role_words(columns, "; ")] = columns
            add_answers(reading, batch, columns, split_of_name(file.name) or "", unusable, first)
            first += batch.num_rows

    corpus = Corpus([])
    corpus.refused, corpus.notes, reading.left_out = read_tables(path, add, options.query)
    for (_, learner), answers in sorted(reading.learners.items()):
        if len(answers) < LEAST:
            corpus.refused.append(Refused(f"learner {learner}", "one answer only, with no other to predict it from"))
    for (split, learner), answers in reading.learners.items():
        if len(answers) >= LEAST:
            history = AnswerHistory(with_gaps(answers), learner)
            corpus.items.append(Item(history, f"learner {learner}", split=split or None))
    if not corpus.items:
        raise UserError(
            f"No usable log of answers in {path} (columns of the learner, the exercise and the outcome, as "
            f"{', '.join(sorted(TABLES))}).",
            lines=refusal_lines(corpus.refused),
        )
    corpus.notes += [*reading.columns, *notes_on(reading)]
    if len(reading.columns) == 1:
        corpus.settled = dict(next(iter(reading.columns.values())))
    return corpus


def columns_of_batch(batch: Any, options: LogOptions) -> dict[str, str]:
    """The columns. Raises UserError if a named column is missing, and FileError if the table is not a log."""
    names = batch.schema.names
    check_given(names, options.by_hand)
    columns = log_columns(batch.slice(0, LOOKED_AT).to_pylist(), names, options.by_hand)
    if isinstance(columns, str):
        raise FileError(
            f"{columns}; its columns are {', '.join(names) or 'none'}, and `data.learner`, `data.item` and "
            "`data.correct` name those of a log"
        )
    return columns


def add_answers(
    reading: Reading, batch: Any, columns: Mapping[str, str], split: str, unusable: Unusable, first: int
) -> None:
    """The answers of some rows, the first of which has the number `first`."""
    values = {what: batch.column(column).to_pylist() for what, column in columns.items()}
    names: dict[str, list[str]] = {
        what: list(map(id_of, values[what])) for what in ("learner", "item", "skill") if what in values
    }
    read, units, clockless = times_of(batch, columns)
    reading.units += units
    reading.clockless += int(clockless.sum())
    times = [None if np.isnan(t) else float(t) for t in read]
    for i in range(batch.num_rows):
        outcome = outcome_of(values["correct"][i])
        reason = unusable_reason(reading, values, names, times, outcome, i)
        if reason is not None:
            unusable.add(reason, first + i)
            continue
        assert outcome is not None
        learner, item = names["learner"][i], names["item"][i]
        reading.partly += 0 < outcome < 1
        reading.untimed += times[i] is None
        for what in ("learner", "item"):
            kind = "numbers" if is_number(names[what][i]) else "texts"
            reading.types.setdefault(what, Counter())[kind] += 1
        skill = names["skill"][i] if "skill" in names else ""
        answer = Answer(item, outcome >= (reading.options.right_from or 1.0), skill, time=times[i])
        event = (split, learner, item, skill, outcome, times[i])
        if times[i] is not None and event in reading.events:
            unusable.add("the same event is there before", first + i)
            continue
        reading.events.add(event)
        reading.learners.setdefault((split, learner), []).append(answer)


def unusable_reason(
    reading: Reading, values: dict[str, list[Any]], names: dict[str, list[str]], times: Sequence[float | None],
    outcome: float | None, i: int
) -> str | None:  # fmt: skip
    """Why row i is not used, or None."""
    if not names["learner"][i]:
        return "no learner"
    if not names["item"][i]:
        return "no exercise"
    if outcome is None:
        return "no outcome" if values["correct"][i] in (None, "") else "its outcome is neither right nor wrong"
    if 0 < outcome < 1 and reading.options.right_from is None:
        return PARTLY
    return "unreadable time" if "time" in values and times[i] is None else None


def notes_on(reading: Reading) -> list[str]:
    """What was read, and what was left out, for the user."""
    kept = [a for answers in reading.learners.values() if len(answers) >= LEAST for a in answers]
    right = sum(a.correct for a in kept) / max(1, len(kept))
    who = counted(len(reading.learners), "learner")
    out = [f"{counted(len(kept), 'answer')}, {right:.0%} right, of {who}"]
    if total := reading.left_out.total():
        reasons = "; ".join(f"{n:,} {why}" for why, n in reading.left_out.most_common(NAMED))
        out.append(Omission(f"{counted(total, 'answer')} left out: {reasons}"))
    if reading.partly:
        out.append(f"{reading.partly:,} partly right answers: right from {reading.options.right_from:g} of the points")
    if reading.untimed:
        out.append("there are no times: the order of rows is taken, and forgetting cannot be learnt")
    if reading.clockless:
        out.append(Omission(f"{counted(reading.clockless, 'answer')} without a time of day, taken as at 0:00"))
    if len(reading.units) > 1:
        forms = ", ".join(f"{n:,} in {unit}" for unit, n in reading.units.most_common())
        out.append(f"times are mixed, and each was read in its own form: {forms}")
    for what, kinds in reading.types.items():
        if len(kinds) > 1:
            counts = " and ".join(f"{n:,} {kind}" for kind, n in kinds.items())
            out.append(f"ids of {what}s are {counts}: all are read as text")
    return out
