"""Arrays of rollouts and of the truth: their shapes are compared, and they are read a bounded block at a time.

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

from afresh.core import UserError
from afresh.engine.evaluation.estimate import Array

BLOCK = 1 << 22  # values that a block holds, unless one state of all members has more
LARGEST = 1e150  # the square of a larger value may be infinite
AXES = ("trajectories", "steps", "channels")


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


def prediction_blocks(prediction: NDArray[Any], truth: NDArray[Any]) -> Iterator[Block]:
    """Blocks of a rollout of one prediction, which has one member. Raises UserError as `ensemble_blocks` does."""
    check_states(truth, "truth")
    _check_shape(prediction.shape, truth.shape)
    for trajectory, leads in _places(truth.shape, 1):
        predicted = _finite(prediction[trajectory, leads], "rollout", trajectory, leads)
        yield Block(trajectory, leads, predicted[None], _finite(truth[trajectory, leads], "truth", trajectory, leads))


def ensemble_blocks(ensemble: NDArray[Any], truth: NDArray[Any]) -> Iterator[Block]:
    """Blocks of an ensemble and of the truth. Raises UserError if the shapes differ, if there is one member only, or if
    a value is not finite."""
    check_states(truth, "truth")
    if ensemble.ndim != truth.ndim + 1:
        raise UserError(
            f"The ensemble has the shape {ensemble.shape} and the truth {truth.shape}. An ensemble has one axis more, "
            "for its members, before those of the truth."
        )
    _check_shape(ensemble.shape[1:], truth.shape)
    if (members := len(ensemble)) < 2:
        raise UserError(
            f"The ensemble has {members} member, which has no spread. Draw at least two, or score the rollout as one "
            "prediction, by its absolute error."
        )
    for trajectory, leads in _places(truth.shape, members):
        predicted = _finite(ensemble[:, trajectory, leads], "ensemble", trajectory, leads, members=True)
        yield Block(trajectory, leads, predicted, _finite(truth[trajectory, leads], "truth", trajectory, leads))


def check_states(states: NDArray[Any], what: str) -> None:
    """Raises UserError unless the states are (trajectories, time, channels, *space)."""
    if states.ndim < 4 or 0 in states.shape:
        raise UserError(
            f"The {what} has the shape {states.shape}. Give (trajectories, time, channels, *space), at least one of "
            "each; a state without space is one channel with an axis of space."
        )


def training_trajectory(training: NDArray[Any], trajectory: int) -> Array:
    """The states (time, channels, *space) in float64. Raises UserError if a value is not finite."""
    states = np.asarray(training[trajectory], np.float64)
    if not np.isfinite(states).all():
        raise UserError(
            f"Trajectory {trajectory} of the training data holds values that are not finite. Leave it out, or fill its "
            "gaps."
        )
    return states


def space_axes(states: NDArray[Any], before: int) -> tuple[int, ...]:
    """The axes of space, counted from the end, of an array that has `before` other axes."""
    return tuple(range(before - states.ndim, 0))


def _places(shape: tuple[int, ...], members: int) -> Iterator[tuple[int, slice]]:
    trajectories, steps = shape[:2]
    leads = max(1, BLOCK // (members * int(np.prod(shape[2:]))))
    for trajectory in range(trajectories):
        for start in range(0, steps, leads):
            yield trajectory, slice(start, min(start + leads, steps))


def _check_shape(shape: tuple[int, ...], truth: tuple[int, ...]) -> None:
    if len(shape) != len(truth):
        raise UserError(f"The rollout has the shape {shape} and the truth {truth}. Give as many axes for both.")
    for axis, (given, known) in enumerate(zip(shape, truth, strict=True)):
        if given == known:
            continue
        if axis == 1:
            longer = "rollout" if given > known else "truth"
            raise UserError(
                f"The rollout has {given:,} steps and the truth has {known:,}. Cut the {longer} to "
                f"{min(given, known):,} steps, so that both have the same leads."
            )
        name = AXES[axis] if axis < len(AXES) else f"points along axis {axis - len(AXES)} of space"
        raise UserError(
            f"The rollout has {given:,} {name} and the truth has {known:,} (shapes {shape} and {truth}). Give a truth "
            "for the same trajectories, channels and grid."
        )


def _finite(values: NDArray[Any], what: str, trajectory: int, leads: slice, members: bool = False) -> Array:
    """The values in float64. Raises UserError, which says where, if one is not finite."""
    values = np.asarray(values, np.float64)
    wrong = ~(np.abs(values) <= LARGEST)  # also of NaN
    if wrong.any():
        by_lead_and_channel = wrong.any(axis=(*((0,) if members else ()), *space_axes(values, 3 if members else 2)))
        lead, channel = np.argwhere(by_lead_and_channel)[0]
        first = leads.start + int(lead) + 1
        remedy = (
            "Leave that trajectory out, or fill its gaps."
            if what == "truth"
            else f"Score the first {first - 1:,} steps, and report that it diverged there."
        )
        raise UserError(
            f"The {what} holds values that are not finite or are beyond {LARGEST:g}, the first of them in trajectory "
            f"{trajectory}, step {first:,}, channel {int(channel)}. {remedy}"
        )
    return values
