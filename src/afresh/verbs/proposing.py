"""The verb `propose`: what to measure next, by what was measured so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data.measurements import Observed, read_observed
from afresh.data.refusals import refusal_lines
from afresh.engine.alignment.methods.search import of_the_best
from afresh.engine.alignment.surrogate.acquisition import Acquisition, Array, Goal, acquired, batch_of
from afresh.engine.alignment.surrogate.model import FEW, Predictions, Surrogate, fit_surrogate, widened
from afresh.engine.sampling.request import Request, contains_prompts
from afresh.runs.run import Run
from afresh.verbs.candidates import (
    ASKED,
    DRAWN,
    LISTED,
    ORIGINS,
    PARENTS,
    RECOMBINED,
    REFINED,
    VARIED,
    Pool,
    draw,
    vary,
    wanted_numbers,
)
from afresh.verbs.likelihoods import read_items
from afresh.verbs.proposal_batch import Proposal, Proposals, past_of, text_of

BATCH, BUDGET = 20, 1_000
MOST_BATCH, MOST_BUDGET = 1_000, 1_000_000
GENERATIONS = 4  # of offspring
SHORTLIST = 1_000  # candidates that are compared with each other
LONGEST = 100  # characters of an item in a reason
LEAST_CHANCE = 0.005  # to be better, which is not shown as 0%
SURE = 0.5  # chance from which on an item is expected to be better


@dataclass(frozen=True)
class BatchPlan:
    """How many items are measured next, what for, and how they are chosen: from `budget` candidates, by the value of
    an `acquisition`. `settings` are those of sampling.

    Raises UserError for numbers out of range and an unknown acquisition.
    """

    goal: Goal
    batch: int = BATCH
    budget: int = BUDGET
    acquisition: Acquisition = "ei"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MOST_BATCH:
            raise UserError(f"`batch` is how many to measure next, from 1 to {MOST_BATCH:,}. Given: {self.batch}.")
        if not self.batch <= self.budget <= MOST_BUDGET:
            raise UserError(
                "`budget` is the number of candidates, from the size of the batch to "
                f"{MOST_BUDGET:,}. Given: {self.budget}."
            )
        if self.acquisition not in get_args(Acquisition):
            names = ", ".join(get_args(Acquisition))
            raise UserError(f"No acquisition {self.acquisition!r}. Choose one of: {names}.")


def propose(
    run: Run,
    observed: Sequence[Path] | Observed,
    column: str,
    plan: BatchPlan,
    *,
    candidates: Path | None = None,
    item_column: str | None = None,
) -> Proposals:
    """The next batch of items to measure, chosen from candidates that the run draws or from a list of `candidates`.

    Raises UserError for tables and columns that cannot be used, for too few or equal values, and if no candidate is
    left.
    """
    kind = run.encoder.kind
    table = observed if isinstance(observed, Observed) else read_observed(observed, kind, column, item_column)
    for line in refusal_lines(table.refused):
        events.warning(f"not used: {line}")
    for text in table.notes:
        events.note(text)
    rows = table.measured
    surrogate = fit_surrogate(kind, [r.item for r in rows], [r.value for r in rows if r.value is not None], plan.seed)
    notes = remarks(surrogate, len(rows))
    for text in notes:
        events.warning(text)
    events.note(f"{column} is learnt by {surrogate.quality}", "surrogate")
    past = past_of(table.rows, kind)
    if past is not None:
        events.note(str(past), "past")
        surrogate = widened(surrogate, past.pairs)
    pool = Pool(frozenset(map(kind.digest, surrogate.known)))
    chooser = Chooser(surrogate, plan)
    if candidates is not None:
        pool.add(run, [i.value for i in read_items(run, candidates)], LISTED)
    else:
        # Other noise in each round, though the seed is the same.
        fill(pool, run, chooser, column, plan.seed * 1_000_003 + 7 * len(rows))
    events.note(str(pool), "candidates")
    if not pool.items:
        raise UserError(
            f"None of {pool.drawn:,} candidates is valid and not measured yet. Raise the `budget`, change the `seed`, "
            "or train longer.",
            "no_candidates",
        )
    if len(pool.items) < plan.batch:
        events.warning(f"only {len(pool.items)} candidates are left for a batch of {plan.batch}: raise the `budget`")
    chosen = chooser.batch(pool.items)
    best = int(plan.goal.worth(surrogate.values).argmax())
    return Proposals(
        rows=tuple(described(surrogate, plan.goal, pool, chosen)),
        encoder=run.encoder,
        column=column,
        goal=plan.goal,
        acquisition=plan.acquisition,
        measured=len(surrogate.known),
        best=(name_of(surrogate, best), float(surrogate.values[best])),
        model=str(surrogate.quality),
        pool=str(pool),
        past=past,
        notes=(*table.notes, *notes),
        seed=plan.seed,
        known=tuple(rows),
    )


def check_apart(out: Path, observed: Sequence[Path]) -> None:
    """Raises UserError if results are read from where the proposals are to be written, which would remove them."""
    for path in observed:
        if out.resolve() in (path.resolve(), *path.resolve().parents):
            raise UserError(
                f"The results in {path} would be replaced by the new proposals. Choose another folder, `out`.",
                "output_exists",
                path=str(out),
            )


def remarks(surrogate: Surrogate, rows: int) -> list[str]:
    """What limits the trust in a surrogate."""
    out, n, plural = [], len(surrogate.known), surrogate.kind.plural
    if n < FEW:
        out.append(f"only {counted(n, surrogate.kind.name, plural)} measured: the intervals are guesses below {FEW}")
    if rows > n:
        out.append(f"{rows - n:,} of {rows:,} values are of {plural} measured before: their means are learnt")
    if not surrogate.quality.useful:
        out.append(
            "the values that were left out were predicted no better than by their mean: this batch is chosen mostly to "
            "learn, and little is expected of it. Measure more, or check the column"
        )
    return out


class Chooser:
    """Values candidates by a surrogate, and chooses batches of them.

    Unless a target is wanted, the candidates are compared by a surrogate of the ranks of the values. Many objectives
    are products, near 0 for most items: on their own scale, expected improvement then asks about what is unlike all
    that was measured, and ends below samples at random (docs/development/log.md).
    """

    def __init__(self, surrogate: Surrogate, plan: BatchPlan) -> None:
        self.measured, self.plan = surrogate, plan
        self.surrogate = surrogate.of_ranks(plan.seed) if plan.goal.target is None else surrogate
        # What is expected of the best measured item: its own value may be noise.
        self.best = float(plan.goal.worth(self.surrogate.model.predict(self.surrogate.rows)[0]).max())
        self.rows: Array | None = None

    def describe(self, items: Sequence[Any]) -> Array:
        """Descriptors (m, D) of items. Those that were described before, or some of them, must come first: a pool only
        grows, and most of what it has is described already."""
        known = 0 if self.rows is None else len(self.rows)
        if new := items[known:]:
            rows = self.surrogate.describe(new)
            self.rows = rows if self.rows is None else np.concatenate([self.rows, rows])
        assert self.rows is not None
        return self.rows[: len(items)]

    def values(self, rows: Array) -> Array:
        """The value of measuring each item with descriptors (m, D) alone."""
        found = self.surrogate.predict(rows)
        return acquired(self.plan.acquisition, found.mean, np.square(found.sd), self.plan.goal, self.best)

    def best_of(self, items: Sequence[Any], count: int) -> list[Any]:
        """The `count` items of highest value, from the best on."""
        value = self.values(self.describe(items))
        return [items[i] for i in np.argsort(-value, kind="stable")[:count]]

    def batch(self, items: Sequence[Any]) -> list[int]:
        """The indices of a batch, chosen together from the SHORTLIST of highest value. Only items with a chance to be
        better, as `described` states it, are considered; if these are too few, all of them and the best others."""
        plan, rows = self.plan, self.describe(items)
        found, best = self.measured.predict(rows), float(plan.goal.worth(self.measured.values).max())
        chance = plan.goal.chance(found.mean, found.measured_sd, best)
        able = np.flatnonzero(chance >= LEAST_CHANCE)
        first: list[int] = []
        if len(able) < min(plan.batch, len(items)):
            first, able = able.tolist(), np.flatnonzero(chance < LEAST_CHANCE)
            events.warning(
                f"only {len(first)} of {len(items):,} candidates have a chance of {LEAST_CHANCE:.1%} or more to be "
                "better than the best measured value: the rest of the batch is chosen to learn. Raise the `budget`"
            )
        short = able[np.argsort(-self.values(rows[able]), kind="stable")[: max(SHORTLIST, plan.batch)]]
        mean, covariance = self.surrogate.posterior(rows[short])
        alike = self.surrogate.likeness.similarity(rows[short], rows[short])
        noise, count = self.surrogate.noise, plan.batch - len(first)
        picked = batch_of(plan.acquisition, mean, covariance, noise, plan.goal, self.best, count, alike, plan.seed)
        return first + [int(short[i]) for i in picked]


def fill(pool: Pool, run: Run, chooser: Chooser, column: str, seed: int) -> None:
    """Fill the pool with as many candidates as the budget allows: where items can be varied, a quarter are variations
    of the best measured items and a quarter of the best candidates so far; where they can be recombined, a quarter are
    offspring of both; the rest are samples, half of them of the value that is wanted if the run has learnt the
    column."""
    known, goal = chooser.measured, chooser.plan.goal
    budget, settings = chooser.plan.budget, chooser.plan.settings
    asked = wanted_numbers(run, column, goal, known.values.tolist())
    varied = budget // 4 if contains_prompts(run.encoder) or run.family.edit is not None else 0
    recombined = budget // 4 if run.encoder.abilities.recombines is not None else 0
    fresh = budget - 2 * varied - recombined
    wanted = fresh // 2 if asked else 0
    draw(pool, run, fresh - wanted, DRAWN, Request(), seed, settings)
    draw(pool, run, wanted, ASKED, Request(number=asked), seed + 1, settings)
    order = np.argsort(-goal.worth(known.values), kind="stable")
    measured = [known.known[i] for i in order]
    vary(pool, run, varied, VARIED, measured[:PARENTS], seed + 2, settings)
    if pool.items:
        vary(pool, run, varied, REFINED, chooser.best_of(pool.items, PARENTS), seed + 3, settings)
        recombine(pool, run, recombined, chooser, measured, seed + 4)


def recombine(pool: Pool, run: Run, count: int, chooser: Chooser, measured: Sequence[Any], seed: int) -> None:
    """Add `count` offspring of the best candidates so far and the best of the `measured` items, in GENERATIONS, so that
    the offspring of promising offspring come, too (Tripp et al. 2021, "A fresh look at de novo molecular design
    benchmarks")."""
    recombines, rng = run.encoder.abilities.recombines, np.random.default_rng(seed)
    if not count or recombines is None:
        return
    for generation in range(GENERATIONS):
        some = (generation + 1) * count // GENERATIONS - generation * count // GENERATIONS
        best = chooser.best_of(pool.items, max(PARENTS, some)) if generation else measured
        first, second = (
            [items[i] for i in of_the_best(np.arange(len(items)), some, rng)] for items in (best, measured)
        )
        offspring = recombines.offspring(list(zip(first, second, strict=True)), int(rng.integers(1 << 31)))
        pool.add(run, offspring, RECOMBINED)


def name_of(surrogate: Surrogate, index: int) -> str:
    """A measured item in words: the item itself if it is text, or the beginning of its digest, as in ids."""
    kind, item = surrogate.kind, surrogate.known[index]
    return text_of(kind, item) if kind.inline else kind.digest(item)[:8]


def shortened(text: str) -> str:
    """A text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def described(surrogate: Surrogate, goal: Goal, pool: Pool, chosen: Sequence[int]) -> list[Proposal]:
    """The chosen candidates with what is believed of them, the likeliest to be better first, then by their means."""
    kind = surrogate.kind
    items = [pool.items[i] for i in chosen]
    found = surrogate.predict(surrogate.describe(items))
    best = float(goal.worth(surrogate.values).max())
    chance = goal.chance(found.mean, found.measured_sd, best)
    facts = {} if kind.facts is None else kind.facts(items)
    alerts = [""] * len(items) if kind.alerts is None else kind.alerts(items)
    out = []
    for i, item in enumerate(items):
        nearest = int(found.nearest[i])
        outside = bool(found.similarity[i] < surrogate.domain)
        out.append(
            Proposal(
                name=kind.digest(item)[:8],
                item=item,
                predicted=float(found.mean[i]),
                low=float(found.low[i]),
                high=float(found.high[i]),
                chance=float(chance[i]),
                nearest=name_of(surrogate, nearest),
                nearest_value=float(surrogate.values[nearest]),
                similarity=float(found.similarity[i]),
                outside=outside,
                facts={name: float(values[i]) for name, values in facts.items()},
                origin=ORIGINS[pool.origins[chosen[i]]],
                why=reason(surrogate, goal, found, i, float(chance[i]), best, outside, alerts[i]),
            )
        )
    worth = goal.worth(found.mean)
    return [out[i] for i in np.lexsort((-worth, -chance))]


def reason(
    surrogate: Surrogate, goal: Goal, found: Predictions, i: int, chance: float, best: float, outside: bool, alert: str
) -> str:
    """Why an item is worth measuring, in a sentence or two, and what speaks against it (`alert`)."""
    nearest = int(found.nearest[i])
    expected = float(goal.worth(found.mean[i : i + 1])[0]) > best
    if chance >= SURE or expected:
        first = f"Expected to be better than the best measured value (chance {chance:.0%})"
    elif chance >= SURE / 10:
        first = f"May be better than the best measured value (chance {chance:.0%})"
    else:
        first = f"Uncertain, and measured to learn: the chance to be better than the best is {chance:.1%}"
    like = f"most like {shortened(name_of(surrogate, nearest))} ({found.similarity[i]:.2f}), which measured "
    like += f"{surrogate.values[nearest]:.4g}"
    text = f"{first}; {like}."
    if outside:
        text += (
            f" It is less like what was measured than measured {surrogate.kind.plural} are like each other: its "
            "interval may be too narrow."
        )
    return text + (f" Alert: {alert}." if alert else "")
