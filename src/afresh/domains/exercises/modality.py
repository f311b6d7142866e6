"""Exercises: logs of who answered what, when, and whether it was right, to records of tokens whose outcomes are learnt.

An item is the history of one learner. A model of it traces knowledge: its probability of the outcome `right` after an
exercise is that of the learner's next answer (Piech et al. 2015, Deep Knowledge Tracing; Pandey and Karypis 2019,
SAKT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from afresh.core import Corpus, Item
from afresh.core.plural import counted
from afresh.domains.exercises.encoder import AnswerEncoder, fit_answers, load_answers
from afresh.domains.exercises.history import ANSWERS, AnswerHistory
from afresh.domains.exercises.log import LogOptions, read_log, recognise

FUTURE = 0.1  # share of a learner's answers that is held out as the future


class ExerciseOptions(LogOptions):
    """How a log is read, held out and encoded."""

    context: int = Field(300, ge=8, le=1 << 16, description="tokens of a window; an answer has 3")
    split: Literal["learners", "future"] = Field(
        "learners", description="what is held out: a tenth of the learners, or the last tenth of each one's answers"
    )
    least: int = Field(5, ge=1, description="answers in training from which an exercise has a token of its own")
    max_items: int = Field(100_000, ge=1, description="the most frequent exercises that have a token of their own")


class ExerciseModality:
    """.csv, .tsv, .parquet, .jsonl and SQLite tables of answers, as single files (also .gz) or in a folder."""

    name = "exercises"
    kind = ANSWERS
    options = ExerciseOptions

    sniff = staticmethod(recognise)

    def read(self, path: Path, options: ExerciseOptions) -> Corpus:
        """One Item a learner. Raises UserError if no answer can be used, or if a column that was named is missing."""
        corpus = read_log(path, options)
        if options.split == "future" and not any(i.split for i in corpus.items):
            corpus.items, note = _with_future(corpus.items)
            corpus.notes.append(note)
        return corpus

    def fit(self, items: Sequence[Item], options: ExerciseOptions) -> AnswerEncoder:
        """The exercises and skills of the training histories. Raises UserError if there is nothing to tell apart."""
        return fit_answers(items, options.context, options.least, options.by_hand, options.max_items)

    def load(self, folder: Path) -> AnswerEncoder:
        return load_answers(folder)


MODALITY = ExerciseModality()


def _with_future(items: Sequence[Item]) -> tuple[list[Item], str]:
    """Each history without its last tenth to train on, and whole, with only the last tenth predicted, held out."""
    out = []
    short = 0
    for item in items:
        history: AnswerHistory = item.value
        later = int(len(history) * FUTURE)
        if not later or len(history) - later < 2:
            short += 1
            out.append(replace(item, split="train"))
            continue
        cut = len(history) - later
        out.append(replace(item, value=AnswerHistory(history.answers[:cut], history.learner), split="train"))
        out.append(replace(item, value=AnswerHistory(history.answers, history.learner, cut), split="validation"))
    note = f"the last tenth of each learner's answers is held out; the {counted(short, 'learner')} with fewer than ten"
    return out, f"{note} are for training only"
