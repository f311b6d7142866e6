"""Rollouts of a run from the first held-out states, beside the truth and beside simpler models, for its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Cond, Evidence, Item, UserError
from afresh.core.plural import counted
from afresh.core.space import evenly_spaced
from afresh.domains.field.calibration import coverage, ranks
from afresh.domains.field.encoder import PAST, FieldEncoder
from afresh.domains.field.linear_model import fit_linear_model
from afresh.domains.field.linear_model import roll_out as roll_out_linearly
from afresh.domains.field.range_seen import far_from_seen
from afresh.domains.field.rollout import KEPT, futures
from afresh.domains.field.rollout_arrays import check_states
from afresh.engine.evaluation.estimate import Array
from afresh.engine.evaluation.study import LATE, Unmeasurable, study_of
from afresh.engine.evaluation.time_budget import Effort
from afresh.runs.run import Run


# What a rollout has to be better than: persistence and climatology know nothing of the dynamics.
def persistence(initial: NDArray[Any], steps: int) -> NDArray[Any]:
    """Every state is the initial one, (trajectories, channels, *space): a rollout of so many steps, which is read-only
    and takes no memory of its own."""
    return _held(np.asarray(initial), steps)


def climatology(training: NDArray[Any], members: int, trajectories: int, steps: int, seed: int = 0) -> NDArray[Any]:
    """An ensemble of training states (N, T, C, *space) that are drawn at random, with replacement, read-only.

    Each member of each trajectory is one state, held at all leads, so that the ensemble is no larger than one of a
    single step. At every lead the members are independent of one another and of the truth.
    """
    check_states(training, "training data")
    generator = np.random.default_rng(seed)
    shape = (members, trajectories)
    rows, times = generator.integers(0, len(training), shape), generator.integers(0, training.shape[1], shape)
    drawn = [np.asarray(training[i, t]) for i, t in zip(rows.ravel(), times.ravel(), strict=True)]
    return _held(np.stack(drawn).reshape(*shape, *drawn[0].shape), steps, axis=2)


def _held(states: NDArray[Any], steps: int, axis: int = 1) -> NDArray[Any]:
    """The states for so many steps, along a new axis, without a copy."""
    if steps < 1:
        raise UserError(f"A rollout of {steps} steps was asked for. Give 1 or more.")
    return np.broadcast_to(np.expand_dims(states, axis), (*states.shape[:axis], steps, *states.shape[axis:]))


TRAJECTORIES, STEPS, MEMBERS = 16, 200, 16  # at most
FEW = 8  # trajectories and members where the seconds are limited
SHARE = 0.1  # of the seconds of a limited measurement, for the rollouts that are scored
LEAST_STEPS = 4
STARTS = 24  # states from which the noise of members is chosen
HELD, WIDEST, HALVINGS = 0.9, 3.0, 8  # share of truths within intervals; the spread is within 2^-WIDEST and 2^WIDEST


@dataclass(frozen=True)
class HeldRollouts:
    """What a run and simpler models make of the held-out trajectories, in deviations of each channel.

    truth: (trajectories, time, channels, *space), the state that is begun with left out. ensemble: (members, ...), one
    member for a run that draws the same each time. simpler: rollouts (trajectories, ...) of other models by name.
    climate: (members, ...), states of training drawn at random. learnt: training states (trajectories, time, ...).
    noise: how members are drawn. left: for each future, the step at which it left what was seen in training, 0 if it
    did not, (members * trajectories,); the steps are those that all futures hold.
    """

    encoder: FieldEncoder
    truth: Array
    ensemble: NDArray[Any]
    simpler: dict[str, Array]
    climate: Array
    learnt: Array
    noise: Noise
    left: NDArray[np.intp]

    @property
    def timed(self) -> bool:
        """Whether states follow one another; otherwise they are outputs of inputs, or drawn by themselves."""
        return self.encoder.history > 0

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


@dataclass(frozen=True)
class Noise:
    """For how many steps members keep their noise, and by which factor they differ more than in training, as chosen
    from so many `starts` in trajectories that are not scored; 0: not chosen. `spread` is None for families without."""

    keep: int = 1
    spread: float | None = None
    starts: int = 0

    @property
    def settings(self) -> dict[str, float]:
        return {} if self.spread is None else {"spread": self.spread}


def roll(
    run: Run,
    encoder: FieldEncoder,
    begin: Cond,
    steps: int,
    members: int,
    effort: Effort,
    noise: Noise,
    stage: str = "rollouts",
) -> NDArray[np.float32]:
    """Futures of N conditions, (members, N, steps, channels, *space): of states that follow one another fewer steps,
    and otherwise fewer members but two, where the seconds are over; and fewer steps where the model's numbers are no
    longer finite. Raises UserError if the first are not, and Unmeasurable if the seconds are over before."""
    if effort.over:
        raise Unmeasurable(LATE)
    timed, drawn = PAST in begin.parts, list[NDArray[np.float32]]()
    parts = [(0, members)] if timed else [(m, 1) for m in range(members)]
    for first, count in parts:
        if effort.over and first >= 2:
            break
        for x in futures(run, encoder, begin, steps, 0, noise.keep, noise.settings, count, first):
            drawn.append(x.numpy().reshape(begin.size, count, *encoder.space.shape).swapaxes(0, 1))
            effort.report(stage, len(drawn) / (steps if timed else members))
            if effort.over:
                break
    return np.stack(drawn, 2) if timed else np.concatenate(drawn)[:, :, None]


def choose_noise(run: Run, encoder: FieldEncoder, held: Sequence[Sequence[Item]], steps: int, effort: Effort) -> Noise:
    """The noise with which 90% intervals hold most nearly 90% of the truths in these trajectories: the spread after one
    step, then for how many steps it is kept, by the mean over leads of the distance from 90%.

    What a model gets wrong in a system without chance, it gets wrong in a similar way for some steps, and members whose
    noise is new at each step differ too little. Where chance is in the system, its noise is new.
    """
    horizon, spread, keep, nearest = min(steps, max(KEPT), max(1, len(held[0]) // 2)), None, 1, np.inf
    places = [(t, k) for t in held for k in range(len(t) - horizon + 1)]
    starts = [places[i] for i in evenly_spaced(len(places), STARTS).tolist()]
    begin = encoder.encode([t[k] for t, k in starts]).cond
    truth = states_of([t[k:] for t, k in starts], encoder, horizon)
    if "spread" in run.settings({}).model_dump():
        middle, *_ = roll(run, encoder, begin, 1, 1, effort, Noise(spread=0.0), "spread of members")
        drawn = roll(run, encoder, begin, 1, FEW, effort, Noise(), "spread of members")
        spread = fitted_spread(middle, drawn, truth[:, :1])
    few = evenly_spaced(len(starts), FEW)
    for each in KEPT if horizon > 1 else ():
        if effort.over:
            break
        drawn = roll(run, encoder, begin.select(few), horizon, FEW, effort, Noise(each, spread), "noise of members")
        shares = coverage(ranks(drawn, truth[few.numpy(), : drawn.shape[2]]), HELD)
        distance = float(np.mean([abs(e.value - HELD) for e in shares]))
        keep, nearest = (each, distance) if distance < nearest else (keep, nearest)
    return Noise(keep, spread, len(starts))


def fitted_spread(middle: NDArray[Any], members: NDArray[Any], truth: Array) -> float:
    """The factor of the distances of members (M, N, ...) from their middle (N, ...) with which 90% intervals hold 90%
    of the truths (N, ...): of Gaussian members and errors, the ratio of their deviations."""
    low, high = -WIDEST, WIDEST
    for _ in range(HALVINGS):
        factor = 2 ** ((low + high) / 2)
        (held,) = coverage(ranks(middle + factor * (members - middle), truth), HELD)
        low, high = (low, np.log2(factor)) if held.value > HELD else (np.log2(factor), high)
    return round(float(2 ** ((low + high) / 2)), 3)


def held_rollouts(run: Run, evidence: Evidence) -> HeldRollouts:
    """Raises Unmeasurable if there is no held-out trajectory of two states, if a future leaves what was seen in
    training in its first step, and if the seconds are over before anything is drawn."""
    study = study_of(evidence)
    encoder, effort = run.encoder, study.effort
    assert isinstance(encoder, FieldEncoder)
    history, few = encoder.history, FEW if study.limited else None
    held = trajectories_of(study.heldout_items, history)
    longest = max(map(len, held), default=0)
    held = [t for t in held if len(t) == longest][: few or (TRAJECTORIES if history else None)]
    if not held:
        raise Unmeasurable("there are no held-out states")
    choosing = list[list[Item]]()
    if history and len(held) > 1:
        choosing, held = held[: len(held) // 2], held[len(held) // 2 :]
    elif history and longest >= 2 * LEAST_STEPS:
        choosing, held = [held[0][longest // 2 :]], [held[0][: longest // 2]]
    longest = len(held[0])
    cond, members, steps, noise = (
        encoder.encode([t[0] for t in held]).cond,
        few or MEMBERS,
        min(longest, STEPS),
        Noise(),
    )
    tried = roll(run, encoder, cond.select(evenly_spaced(cond.size, 1)), 1, 2, effort, noise)
    if np.array_equal(*tried):  # a model without noise
        members = 1
    if history:
        steps = effort.affordable(
            steps, min(steps, LEAST_STEPS), SHARE, lambda: next(futures(run, encoder, cond, 1, 0, members=members))
        )
    if members > 1 and choosing:
        noise = choose_noise(run, encoder, choosing, steps, effort.half())
    elif members > 1 and history:
        study.note("too few states are held out to choose the noise of members: it is as in training")
    ensemble = roll(run, encoder, cond, steps, members, effort, noise)
    left = steps_left(ensemble, encoder) if history else np.zeros(ensemble.shape[:2], np.intp)
    futures_left = int((left > 0).sum())
    steps = min([ensemble.shape[2], *(left[left > 0] - 1)])
    if not steps:
        raise Unmeasurable(f"{counted(futures_left, 'future')} of {left.size} left what was seen in training at once")
    if futures_left:
        study.note(f"{futures_left} of {counted(left.size, 'future')} left what was seen in training")
    if steps < longest:
        study.note(f"rollouts are scored over {steps:,} of {longest:,} held-out states")
    learnt = trajectories_of(study.train_items, history)
    longest = max(map(len, learnt))
    states = states_of([t for t in learnt if len(t) == longest], encoder, longest)
    simpler: dict[str, Array] = {}
    if history:
        first = cond.parts[PAST][:, -encoder.space.shape[0] :].double().numpy()
        simpler["persistence"] = np.asarray(persistence(first, steps))
        if longest > 2 and effort.over:
            study.note("a linear model is left out to keep the minutes")
        elif longest > 2:
            effort.report("a linear model")
            model = fit_linear_model(states, tuple(encoder.periodic))
            simpler["linear"] = roll_out_linearly(model, first, steps)
    climate = climatology(states, MEMBERS, len(held), steps)
    truth = states_of(held, encoder, steps)
    return HeldRollouts(
        encoder, truth, ensemble[:, :, :steps], simpler, np.asarray(climate), states, noise, left.ravel()
    )


def steps_left(ensemble: NDArray[np.float32], encoder: FieldEncoder) -> NDArray[np.intp]:
    """The step at which each future (members, N, steps, ...) left what was seen in training, from 1 on; 0 if it did
    not: (members, N)."""
    seen, shape = encoder.seen_range, ensemble.shape[:2]
    out = np.zeros(shape, np.intp)
    for k in range(ensemble.shape[2]):
        states = encoder.physical(torch.from_numpy(ensemble[:, :, k]).flatten(0, 1))
        out[(out == 0) & far_from_seen(states, seen).reshape(shape)] = k + 1
    return out


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
