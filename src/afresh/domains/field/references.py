"""What a rollout has to be better than.

Persistence and climatology know nothing of the dynamics; `linear_model` is the third of these. Shapes are those of
`scores`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def persistence(initial: NDArray[Any], steps: int) -> NDArray[Any]:
    """Every state is the initial one, (trajectories, channels, *space): a rollout of so many steps, which is read-only
    and takes no memory of its own."""
    return _held(np.asarray(initial), steps)


def climatology(training: NDArray[Any], members: int, trajectories: int, steps: int, seed: int = 0) -> NDArray[Any]:
    """An ensemble of training states (N, T, C, *space) that are drawn at random, with replacement, read-only.

    Each member of each trajectory is one state, held at all leads, so that the ensemble is no larger than one of a
    single step. At every lead the members are independent of one another and of the truth.
    """
    generator = np.random.default_rng(seed)
    shape = (members, trajectories)
    rows, times = generator.integers(0, len(training), shape), generator.integers(0, training.shape[1], shape)
    drawn = [np.asarray(training[i, t]) for i, t in zip(rows.ravel(), times.ravel(), strict=True)]
    return _held(np.stack(drawn).reshape(*shape, *drawn[0].shape), steps, axis=2)


def _held(states: NDArray[Any], steps: int, axis: int = 1) -> NDArray[Any]:
    """The states for so many steps, along a new axis, without a copy."""
    return np.broadcast_to(np.expand_dims(states, axis), (*states.shape[:axis], steps, *states.shape[axis:]))
