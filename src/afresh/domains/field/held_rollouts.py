"""Rollouts of a run from the first held-out states, beside the truth and beside simpler models, for its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Evidence, Item
from afresh.domains.field.encoder import PAST, FieldEncoder
from afresh.domains.field.linear_model import fit_linear_model
from afresh.domains.field.linear_model import roll_out as roll_out_linearly
from afresh.domains.field.references import climatology, persistence
from afresh.domains.field.rollout import KEPT, futures
from afresh.evaluation.estimate import Array
from afresh.evaluation.study import Unmeasurable, study_of
from afresh.runs.run import Run

TRAJECTORIES, STEPS, MEMBERS = 16, 200, 16  # at most
FEW = 8  # trajectories and members where the seconds are limited
SHARE = 0.2  # of the seconds of a limited measurement, for rollouts with each way of keeping noise
LEAST_STEPS = 4


@dataclass(frozen=True)
class HeldRollouts:
    """What a run and simpler models make of the held-out trajectories, in deviations of each channel.

    truth: (trajectories, time, channels, *space), the state that is begun with left out. ensemble: (members, ...), one
    member for a run that draws the same each time. simpler: rollouts (trajectories, ...) of other models by name.
    kept: the members by the number of steps for which they keep their noise, `ensemble` among them; empty of one.
    climate: (members, ...), states of training drawn at random. learnt: training states (trajectories, time, ...).
    """

    encoder: FieldEncoder
    truth: Array
    ensemble: Array
    kept: dict[int, Array]
    simpler: dict[str, Array]
    climate: Array
    learnt: Array

    @property
    def timed(self) -> bool:
        """Whether states follow one another; otherwise they are outputs of inputs, or drawn by themselves."""
        return self.encoder.saved.history > 0

    def must_be_told(self) -> None:
        """Raises Unmeasurable for states that are drawn by themselves."""
        if not any(part.kind == "aligned" for part in self.encoder.conds.values()):
            raise Unmeasurable("states are drawn by themselves, and there is no truth that they follow from")


def trajectories_of(items: Sequence[Item], history: int) -> list[list[Item]]:
    """The items of each trajectory in the order of time, of which each state follows the one before; of pairs without
    time, each item by itself."""
    if not history:
        return [[item] for item in items]
    by_group: dict[str, list[Item]] = {}
    for item in items:
        by_group.setdefault(item.group or "", []).append(item)
    return list(by_group.values())


def states_of(trajectories: Sequence[Sequence[Item]], encoder: FieldEncoder, steps: int) -> Array:
    """States in deviations, (trajectories, steps, channels, *space)."""
    found = [np.stack([encoder.unit(item.value).numpy() for item in t[:steps]]) for t in trajectories]
    return np.stack(found).astype(np.float64)


def held_rollouts(run: Run, evidence: Evidence) -> HeldRollouts:
    """Raises Unmeasurable if there is no held-out trajectory of two states."""
    study = study_of(evidence)
    encoder = run.encoder
    assert isinstance(encoder, FieldEncoder)
    history, few = encoder.saved.history, FEW if study.limited else None
    held = trajectories_of(study.heldout_items, history)
    longest = max(map(len, held), default=0)
    held = [t for t in held if len(t) == longest][: few or (TRAJECTORIES if history else None)]
    if not held:
        raise Unmeasurable("there are no held-out states")
    examples = encoder.encode([t[0] for t in held])
    members = few or MEMBERS
    cond, steps = examples.cond.repeat(members), min(longest, STEPS)

    def one_step() -> torch.Tensor:
        return next(futures(run, encoder, cond, 1, 0))

    tried = one_step().view(len(held), members, -1)
    if bool((tried[:, :1] == tried).all()):  # a model without noise
        members, cond = 1, examples.cond
    steps = study.effort.affordable(steps, min(steps, LEAST_STEPS), SHARE, one_step)
    if steps < longest:
        study.note(f"rollouts are scored over {steps:,} of {longest:,} held-out states")

    def ensemble(keep: int) -> Array:
        drawn = []
        for k, x in enumerate(futures(run, encoder, cond, steps, 0, keep), 1):
            study.effort.report("rollouts", k / steps)
            drawn.append(x.double().numpy())
            if not np.isfinite(drawn[-1]).all():
                raise Unmeasurable(f"a rollout holds values that are not finite after {k:,} states")
        shape = (len(held), members, steps, *encoder.space.shape)
        return np.stack(drawn, 1).reshape(shape).swapaxes(0, 1)

    kept = {keep: ensemble(keep) for keep in (KEPT if members > 1 and history else (1,))}
    learnt = trajectories_of(study.train_items, history)
    longest = max(map(len, learnt))
    states = states_of([t for t in learnt if len(t) == longest], encoder, longest)
    simpler: dict[str, Array] = {}
    if history:
        channels = encoder.space.shape[0]
        first = examples.cond.parts[PAST][:, -channels:].double().numpy()
        simpler["persistence"] = np.asarray(persistence(first, steps))
        if longest > 2:
            model = fit_linear_model(states, tuple(encoder.saved.periodic))
            simpler["linear"] = roll_out_linearly(model, first, steps)
    climate = climatology(states, MEMBERS, len(held), steps)
    truth = states_of(held, encoder, steps)
    return HeldRollouts(encoder, truth, kept[1], kept if members > 1 else {}, simpler, np.asarray(climate), states)


def spectrum_ring(encoder: FieldEncoder) -> tuple[tuple[bool, ...], tuple[float, ...]]:
    """Which axes of space are periodic, and the distance of points along each."""
    saved = encoder.saved
    return tuple(saved.periodic), tuple(saved.spacing)


def kept_quantities(states: NDArray[Any], least: float = 1e-4) -> list[int]:
    """Channels (numbers) whose mean over space does not change along training trajectories (N, T, C, *space).

    It does not where the root mean square of what it changes by is below `least` deviations: what the system conserves,
    a model should, too.
    """
    means = states.mean(tuple(range(3, states.ndim)))
    if means.shape[1] < 2:
        return []
    change = np.sqrt(np.square(means - means[:, :1]).mean((0, 1)))
    return [c for c in range(len(change)) if change[c] < least]
