"""A linear model of the step from one state to the next, as a reference for models that are not linear.

Ridge regression of the change of the normalised state, so that a model without evidence is persistence. Conditions
(static fields, parameters) are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.field.rollout_arrays import check_states, training_trajectory
from afresh.engine.evaluation.estimate import Array

Kind = Literal["whole", "stencil"]
MOST_VALUES = 512  # in a state of which a matrix of the whole is fitted
TRANSITIONS = 4  # per value of the state that such a matrix needs
RADII = (4, 2, 1)  # of the stencil in one, two and three axes of space: 9, 25 and 27 points
ROWS = 1 << 17  # of features that are held at a time
STRENGTHS = 10.0 ** np.arange(-10, 3)  # of the ridge, relative to the mean variance of a feature
HELD_OUT = 5  # one transition of so many chooses the strength


@dataclass(frozen=True)
class LinearModel:
    """kind: "whole": each value of the next state is a linear function of all values of the last one, as in dynamic
    mode decomposition (Schmid 2010, J. Fluid Mech. 656:5). "stencil": of the values around it, by the same weights
    everywhere.

    weights: (features + 1, values), the last row the constant. mean, deviation, low, high: (channels, 1, ...), of the
    training states. error: of one step on held-out transitions, as a share of persistence's.
    """

    kind: Kind
    periodic: tuple[bool, ...]
    weights: Array
    mean: Array
    deviation: Array
    low: Array
    high: Array
    error: float


def fit_linear_model(training: NDArray[Any], periodic: tuple[bool, ...], kind: Kind | None = None) -> LinearModel:
    """Fitted to the transitions of training states (trajectories, time, channels, *space).

    kind: unless given, the one with the least error on held-out transitions, where "whole" is tried for states of at
    most 512 values with four transitions for each. The strength of the ridge is chosen likewise. Held out are the
    transitions of the last fifth of the trajectories, or the last fifth of those of one that is alone. Raises UserError
    for fewer than two transitions and for values that are not finite.
    """
    axes = len(periodic)
    check_states(training, "training data")
    trajectories, times = training.shape[:2]
    if training.ndim != axes + 3 or trajectories * (times - 1) < 2:
        raise UserError(
            f"The training states have the shape {training.shape}, and {axes} axes of space have a boundary. Give "
            "(trajectories, time, channels, *space) with a boundary for each axis of space, and at least 2 transitions."
        )
    values = int(np.prod(training.shape[2:]))
    enough = values <= MOST_VALUES and trajectories * (times - 1) >= TRANSITIONS * values
    kinds: list[Kind] = [kind] if kind else ["stencil", "whole"] if enough else ["stencil"]
    return min((_fit(training, periodic, k) for k in kinds), key=lambda model: model.error)


def roll_out(model: LinearModel, initial: NDArray[Any], steps: int) -> Array:
    """The states after `initial` (trajectories, channels, *space): (trajectories, steps, channels, *space).

    Each is kept within the range of the training data, which a linear map that is repeated may leave without bound.
    """
    state = np.asarray(initial, np.float64)
    out = np.empty((len(state), steps, *state.shape[1:]))
    for step in range(steps):
        normal = (state - model.mean) / model.deviation
        change = _features(normal, model.kind, model.periodic) @ model.weights
        if model.kind == "stencil":
            change = np.moveaxis(change.reshape(len(state), *state.shape[2:], -1), -1, 1)
        state = state + change.reshape(state.shape) * model.deviation
        state = np.clip(state, model.low, model.high)
        out[:, step] = state
    return out


def _fit(training: NDArray[Any], periodic: tuple[bool, ...], kind: Kind) -> LinearModel:
    mean, deviation, low, high = _statistics(training)
    fit, held_out = _Sums(), _Sums()
    for states, last in _transitions(training):
        normal = (states - mean) / deviation
        change = np.diff(normal, axis=0)
        sums = held_out if last else fit
        sums.add(_features(normal[:-1], kind, periodic), _rows(change, kind))
    strength = min(STRENGTHS, key=lambda s: held_out.error(fit.weights(float(s))))
    error = held_out.error(fit.weights(float(strength))) / max(held_out.squares, np.finfo(np.float64).tiny)
    weights = fit.plus(held_out).weights(float(strength))
    return LinearModel(kind, periodic, weights, mean, deviation, low, high, float(error))


class _Sums:
    """Sums of products of features and targets, from which weights and errors follow without another look at either."""

    def __init__(self) -> None:
        self.inner: Any = 0.0  # (features, features)
        self.outer: Any = 0.0  # (features, targets)
        self.squares = 0.0  # of the targets

    def add(self, features: Array, targets: Array) -> None:
        self.inner = self.inner + features.T @ features
        self.outer = self.outer + features.T @ targets
        self.squares += float(np.sum(targets**2))

    def plus(self, other: _Sums) -> _Sums:
        both = _Sums()
        both.inner, both.outer = self.inner + other.inner, self.outer + other.outer
        both.squares = self.squares + other.squares
        return both

    def weights(self, strength: float) -> Array:
        size = len(self.inner)
        ridge = strength * float(np.trace(self.inner)) / size
        return np.linalg.solve(self.inner + ridge * np.eye(size), self.outer)

    def error(self, weights: Array) -> float:
        """The sum of squared errors that these weights make here."""
        explained = 2 * np.sum(weights * self.outer) - np.sum(weights * (self.inner @ weights))
        return max(0.0, self.squares - float(explained))


def _transitions(training: NDArray[Any]) -> Iterator[tuple[Array, bool]]:
    """States in order (time, channels, *space), a bounded number at a time, each the first of a transition once; and
    whether their transitions are held out."""
    trajectories, times = training.shape[:2]
    most = max(1, ROWS // int(np.prod(training.shape[3:])))
    for i in range(trajectories):
        if trajectories > 1:
            parts = [(0, times - 1, i >= trajectories - max(1, trajectories // HELD_OUT))]
        else:
            cut = times - 1 - max(1, (times - 1) // HELD_OUT)
            parts = [(0, cut, False), (cut, times - 1, True)]
        for start, end, last in parts:
            for first in range(start, end, most):
                yield np.asarray(training[i, first : min(first + most, end) + 1], np.float64), last


def _statistics(training: NDArray[Any]) -> tuple[Array, Array, Array, Array]:
    """Mean, deviation, lowest and highest value of each channel, (channels, 1, ...)."""
    count, total, squares = 0, 0.0, 0.0
    lows, highs = [], []
    over = (0, *range(2, training.ndim - 1))
    for i in range(len(training)):
        states = training_trajectory(training, i)
        count += states.size // states.shape[1]
        total = total + states.sum(over, keepdims=True)[0]
        squares = squares + (states**2).sum(over, keepdims=True)[0]
        lows.append(states.min(over, keepdims=True)[0])
        highs.append(states.max(over, keepdims=True)[0])
    mean = np.asarray(total / count)
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean, np.where(deviation > 0, deviation, 1.0), np.min(lows, axis=0), np.max(highs, axis=0)


def _features(states: Array, kind: Kind, periodic: tuple[bool, ...]) -> Array:
    """Rows of features of states (n, channels, *space), the last feature a constant: one of each state or point."""
    rows = states.reshape(len(states), -1) if kind == "whole" else _stencils(states, periodic)
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def _rows(states: Array, kind: Kind) -> Array:
    """What the features predict: whole states, or the channels of each point."""
    if kind == "whole":
        return states.reshape(len(states), -1)
    return np.moveaxis(states, 1, -1).reshape(-1, states.shape[1])


def _stencils(states: Array, periodic: tuple[bool, ...]) -> Array:
    """The values around each point, (n * points, channels * points of the stencil). Beyond an edge that is not periodic
    stand the values at the edge."""
    axes = len(periodic)
    radius = RADII[min(axes, len(RADII)) - 1]
    for axis, closed in enumerate(periodic):
        margin = [(0, 0)] * states.ndim
        margin[2 + axis] = (radius, radius)
        states = np.pad(states, margin, mode="wrap" if closed else "edge")
    space = tuple(range(2, 2 + axes))
    windows = np.lib.stride_tricks.sliding_window_view(states, (2 * radius + 1,) * axes, space)
    windows = np.moveaxis(windows, 1, 1 + axes)  # (n, *space, channels, *stencil)
    return windows.reshape(int(np.prod(windows.shape[: 1 + axes])), -1)
