"""What a rollout has to be better than, and what no rollout can be better than.

Persistence and climatology know nothing of the dynamics; `linear_model` is the third of these. The floor is the score
of a second truth. Shapes are those of `rollout_arrays`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.field.rollout_arrays import check_states, training_trajectory
from afresh.evaluation.estimate import Array

Score = Callable[[NDArray[Any], NDArray[Any]], Array]


def persistence(initial: NDArray[Any], steps: int) -> NDArray[Any]:
    """Every state is the initial one, (trajectories, channels, *space): a rollout of so many steps, which is read-only
    and takes no memory of its own."""
    return _held(np.asarray(initial), steps)


def mean_climatology(training: NDArray[Any], trajectories: int, steps: int) -> NDArray[Any]:
    """Every state is the mean of the training states (N, T, C, *space) at each point: a rollout, read-only."""
    check_states(training, "training data")
    mean = np.mean([training_trajectory(training, i).mean(0) for i in range(len(training))], axis=0)
    return _held(np.broadcast_to(mean, (trajectories, *mean.shape)), steps)


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


def floor_of_two_truths(score: Score, truths: NDArray[Any], others: NDArray[Any]) -> Array:
    """What an ensemble of true trajectories scores, in place of a model's, against others that are as true.

    truths: (members, trajectories, time, channels, *space), others: (as many as wanted, trajectories, ...): both begin
    at the same initial states but for perturbations as large as what is not known of these. In a chaotic system they
    part, and no model that knows the initial states so well can be expected to score better. score: a function of an
    ensemble and a truth, such as `crps`; one of a single prediction takes a member, `lambda e, t: vrmse(e[0], t)`. The
    scores are averaged over `others`. Raises UserError if the two are not of the same trajectories.
    """
    if truths.ndim != others.ndim or truths.shape[1:] != others.shape[1:] or not len(others):
        raise UserError(
            f"The true ensembles have the shapes {truths.shape} and {others.shape}. Give (members, trajectories, time, "
            "channels, *space) for both, of the same trajectories."
        )
    return np.mean([score(truths, others[i]) for i in range(len(others))], axis=0)


def _held(states: NDArray[Any], steps: int, axis: int = 1) -> NDArray[Any]:
    """The states for so many steps, along a new axis, without a copy."""
    if steps < 1:
        raise UserError(f"A rollout of {steps} steps was asked for. Give 1 or more.")
    return np.broadcast_to(np.expand_dims(states, axis), (*states.shape[:axis], steps, *states.shape[axis:]))
