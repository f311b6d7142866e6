"""Arrays of rollouts and of the truth, which are read a bounded block at a time.

The truth is (trajectories, time, channels, *space), a rollout of one prediction the same, and an ensemble has one axis
more, for its members, before those. Time begins at lead 1: the state from which a rollout began is not part of it. Any
array that is indexed as NumPy's are will do, such as one that is mapped from a file: it is read a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.engine.evaluation.estimate import Array

BLOCK = 1 << 22  # values that a block holds, unless one state of all members has more


@dataclass(frozen=True)
class Block:
    """Some leads of one trajectory: `predicted` (members, leads, channels, *space), `truth` without the first axis."""

    trajectory: int
    leads: slice
    predicted: Array
    truth: Array

    @property
    def place(self) -> tuple[int, slice]:
        """Where its scores stand in an array (trajectories, time, ...)."""
        return self.trajectory, self.leads


def ensemble_blocks(ensemble: NDArray[Any], truth: NDArray[Any]) -> Iterator[Block]:
    """Blocks of an ensemble and of the truth, in float64."""
    trajectories, steps = truth.shape[:2]
    size = max(1, BLOCK // (len(ensemble) * int(np.prod(truth.shape[2:]))))
    for trajectory in range(trajectories):
        for start in range(0, steps, size):
            leads = slice(start, min(start + size, steps))
            predicted = np.asarray(ensemble[:, trajectory, leads], np.float64)
            yield Block(trajectory, leads, predicted, np.asarray(truth[trajectory, leads], np.float64))


def prediction_blocks(prediction: NDArray[Any], truth: NDArray[Any]) -> Iterator[Block]:
    """Blocks of a rollout of one prediction, which has one member."""
    return ensemble_blocks(prediction[None], truth)


def space_axes(states: NDArray[Any], before: int) -> tuple[int, ...]:
    """The axes of space, counted from the end, of an array that has `before` other axes."""
    return tuple(range(before - states.ndim, 0))
