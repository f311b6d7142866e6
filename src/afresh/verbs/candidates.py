"""Candidates for the next batch: what a run draws that is valid, new and different from the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.engine.alignment.surrogate.acquisition import Goal
from afresh.engine.sampling.condition_rows import number_range
from afresh.engine.sampling.request import Request, contains_prompts
from afresh.runs.run import Run
from afresh.verbs.edit import edit
from afresh.verbs.editor import Change, Editor
from afresh.verbs.sample import Sampler

PARENTS = 10  # items that are varied
STRENGTHS = (0.25, 0.5, 0.75)  # shares of an item that are drawn again
DRAWN, ASKED, VARIED, REFINED, RECOMBINED, LISTED = "drawn", "asked", "varied", "refined", "recombined", "listed"
ORIGINS = {
    DRAWN: "drawn",
    ASKED: "drawn for the wanted value",
    VARIED: "varied from the best measured",
    REFINED: "varied from the best predicted",
    RECOMBINED: "recombined from the best",
    LISTED: "of the given list",
}


@dataclass(eq=False)
class Pool:
    """Distinct candidates in the order in which they came, and how each was made; how many were drawn, not valid, known
    already, and drawn before."""

    known: frozenset[str]  # digests of what was measured
    items: list[Any] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    drawn: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, run: Run, values: Sequence[Any], origin: str) -> None:
        kind = run.encoder.kind
        for value in values:
            self.drawn += 1
            if not run.encoder.valid(value) or not kind.size(value):
                self.wrong["not valid"] += 1
            elif (digest := kind.digest(value)) in self.known:
                self.wrong["measured already"] += 1
            elif digest in self.digests:
                self.wrong["drawn before"] += 1
            else:
                self.digests.add(digest)
                self.items.append(value)
                self.origins.append(origin)

    def __str__(self) -> str:
        left = "".join(f", {n:,} {what}" for what, n in self.wrong.most_common())
        ways = ", ".join(f"{n:,} {ORIGINS[o]}" for o, n in Counter(self.origins).items())
        return f"{counted(len(self.items), 'candidate')} of {self.drawn:,}{left}: {ways}"


def wanted_numbers(run: Run, column: str, goal: Goal, values: Sequence[float]) -> Mapping[str, float] | None:
    """The number to ask for: the target, or a little beyond the best measured value, but not farther outside of what
    the run has learnt than its range is wide. None if the run has not learnt that column."""
    name = re.sub(r"\W", "_", column.strip()) or "_"
    part = run.conds.get(name)
    if part is None or part.kind != "number":
        return None
    if goal.target is not None:
        wanted = goal.target
    else:
        measured = np.array(values, dtype=np.float64)
        step = 0.25 * float(measured.std())
        wanted = float(measured[goal.worth(measured).argmax()]) + (step if goal.maximise else -step)
    low, high = number_range(run.conds, run.conditions, name)
    return {name: min(max(wanted, 2 * low - high), 2 * high - low)}


def draw(
    pool: Pool, run: Run, count: int, origin: str, request: Request, seed: int, settings: Mapping[str, Any]
) -> None:
    """Draw `count` samples into the pool."""
    if count > 0:
        pool.add(run, Sampler(run, count, request, seed, settings)().values, origin)


def vary(
    pool: Pool, run: Run, count: int, origin: str, parents: Sequence[Any], seed: int, settings: Mapping[str, Any]
) -> None:
    """Vary the parents in turn, `count` times together, where the run can vary items, with one of the STRENGTHS by the
    seed. Parents that it cannot write are passed over."""
    if count <= 0 or not parents:
        return
    way = _rewritten if contains_prompts(run.encoder) else _edited
    with suppress(UserError):  # this run cannot vary these
        pool.add(run, way(run, count, parents, STRENGTHS[seed % len(STRENGTHS)], seed, settings), origin)


def _rewritten(
    run: Run, count: int, parents: Sequence[Any], strength: float, seed: int, settings: Mapping[str, Any]
) -> Sequence[Any]:
    prompts = run.encoder.abilities.prompts
    assert prompts is not None
    texts: list[str] = []
    written = [run.encoder.kind.encode(p).decode("utf-8", "surrogatepass") for p in parents]
    for turn in range(2 * count):
        with suppress(UserError):  # this writing has tokens that the run has not learnt
            prompts.beginnings(written[turn % len(written)], strength=strength, seed=seed + len(texts))
            texts.append(written[turn % len(written)])
        if len(texts) == count:
            break
    if not texts:
        return []
    return Sampler(run, len(texts), Request(texts, strength=strength), seed, settings)().values


def _edited(
    run: Run, count: int, parents: Sequence[Any], strength: float, seed: int, settings: Mapping[str, Any]
) -> Sequence[Any]:
    some = parents[:count]
    editor = Editor(run, Request(), settings, seed)
    return edit(editor, some, Change(strength=strength), -(-count // len(some))).values[:count]
