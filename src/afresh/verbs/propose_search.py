"""Measuring by a reward: rounds of proposals until a number of calls is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from afresh.core import UserError, events
from afresh.data.measurements import MeasuredItem, Observed
from afresh.engine.alignment.rewards.reward import scorer_of
from afresh.engine.alignment.rewards.reward_factory import Wanted, reward_of
from afresh.engine.sampling.request import Request
from afresh.runs.run import Run
from afresh.verbs.candidates import DRAWN, Pool, draw
from afresh.verbs.proposal_batch import Proposals
from afresh.verbs.proposing import BatchPlan, propose

CALLS = 200
ATTEMPTS = 20  # to draw the first batch


def search(run: Run, reward: Wanted, plan: BatchPlan, calls: int) -> Proposals:
    """Ask a reward for the values of `calls` different items, a batch at a time. The first ones are samples, and so are
    others while all values are equal. Returns the batch that would be next, with what was measured.

    Raises UserError if `calls` is less than a batch, if the run draws too little that is valid, and if all values are
    equal.
    """
    batch = plan.batch
    if calls < batch:
        raise UserError(f"`calls` is how many items the reward values, at least one batch of {batch}. Given: {calls}.")
    made = reward_of(run, reward)
    name = reward if isinstance(reward, str) else made.name
    try:
        scorer = scorer_of(made)
        measured: list[MeasuredItem] = []
        items: Sequence[Any] = others(run, batch, plan.seed, plan.settings, ())
        predicted: Sequence[tuple[float, float, float] | None] = [None] * len(items)
        while True:
            values = scorer(items, [{}] * len(items)).tolist()
            measured += [
                MeasuredItem(item, value, name, None, before)
                for item, value, before in zip(items, values, predicted, strict=False)
            ]
            left = calls - len(measured)
            if left > 0 and len({row.value for row in measured}) == 1:
                known = [row.item for row in measured]
                items, predicted = others(run, min(batch, left), plan.seed + 1, plan.settings, known), [None] * batch
                continue
            found = propose(run, Observed(list(measured)), name, plan)
            best = found.best
            events.note(f"{len(measured):,} of {calls:,} calls: the best is {best[1]:.4g}, {best[0]}", "search")
            if left <= 0:
                return replace(found, searched=True)
            items = found.items[:left]
            predicted = [(p.predicted, p.low, p.high) for p in found[:left]]
    finally:
        made.close()


def others(run: Run, count: int, seed: int, settings: Mapping[str, Any], known: Sequence[Any]) -> list[Any]:
    """`count` different valid samples that are not `known`."""
    pool = Pool(frozenset(map(run.encoder.kind.digest, known)))
    for attempt in range(ATTEMPTS):
        draw(pool, run, 2 * count, DRAWN, Request(), seed * 1_000_003 + 500_009 + attempt, settings)
        if len(pool.items) >= count:
            return pool.items[:count]
    raise UserError(
        f"The run drew {len(pool.items)} other valid items in {pool.drawn:,} samples, and {count} are needed. Train "
        "longer, or make the `batch` smaller.",
        "no_candidates",
    )
