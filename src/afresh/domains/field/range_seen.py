"""Whether a rollout has left what was seen in training, and why that is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.engine.evaluation.estimate import Array

FACTOR = 2.0  # of the range and of deviations, beyond which a state is not like those of training
CUT = 1.5  # of the range, beyond which values of a rollout that is bounded are cut
TAIL = 0.001  # of training states that are left out on each side, for energy and variance


@dataclass(frozen=True)
class SeenRange:
    """What the training states were like, each (channels,).

    low, high: the range of values. mean: of all values. most_energy: the upper quantile over states of the mean square
    distance from `mean`. least_variance, most_variance: the quantiles over states of the variance in space.
    """

    low: Array
    high: Array
    mean: Array
    most_energy: Array
    least_variance: Array
    most_variance: Array


@dataclass(frozen=True)
class Departure:
    """The first state, counted from 0, that is not like those of training, and a sentence that says why."""

    state: int
    reason: str


@dataclass(frozen=True)
class Moments:
    """What is known of each of many states, which need not be in memory at once, each (states, channels): the lowest
    and the highest value, the mean and the variance in space."""

    low: Array
    high: Array
    means: Array
    variances: Array

    @property
    def mean(self) -> Array:
        """Of all values of each channel, (channels,)."""
        return np.asarray(self.means.mean(0))

    @property
    def std(self) -> Array:
        """The standard deviation of all values of each channel, (channels,): of the states' variance the mean, and the
        variance of their means."""
        return np.asarray(np.sqrt(self.variances.mean(0) + np.square(self.means - self.mean).mean(0)))


def moments_of(states: Iterable[NDArray[Any]]) -> Moments:
    """Of states (channels, *space), read one after the other."""
    found = []
    for state in states:
        flat = np.asarray(state, np.float64).reshape(len(state), -1)
        found.append((flat.min(1), flat.max(1), flat.mean(1), flat.var(1)))
    return Moments(*(np.stack(each) for each in zip(*found, strict=True)))


def seen_range(moments: Moments) -> SeenRange:
    """Of the training states."""
    energy = moments.variances + np.square(moments.means - moments.mean)
    least, most = np.quantile(moments.variances, [TAIL, 1 - TAIL], axis=0)
    return SeenRange(
        moments.low.min(0), moments.high.max(0), moments.mean, np.quantile(energy, 1 - TAIL, axis=0), least, most
    )


def left_what_was_seen(
    states: NDArray[Any], seen: SeenRange, factor: float = FACTOR, channels: Sequence[str] = ()
) -> Departure | None:
    """The first of the states (time, channels, *space) of one rollout that has left what was seen; None if none has.

    A state has left it if a value is not finite; if a value is further from the middle of the range of the training
    data than `factor` times half of the range; if the energy, the mean square distance from the training mean, or the
    variance in space is above `factor` squared times that of all but 0.1% of the training states; or if the variance is
    below theirs divided by `factor` squared, for a field that has died out. A channel that is constant in the training
    data has to stay so. channels: their names, for the reason.
    Raises UserError if the channels are not those of training or the factor is below 1.
    """
    if not factor >= 1:
        raise UserError(f"The factor is {factor:g}. Give 1 (nothing beyond what was seen) or more.")
    if states.ndim < 3 or states.shape[1] != len(seen.mean):
        raise UserError(
            f"The states have the shape {states.shape}. Give (time, channels, *space) with the {len(seen.mean)} "
            "channels of the training data."
        )
    middle, half = (seen.high + seen.low) / 2, (seen.high - seen.low) / 2
    for i in range(len(states)):
        state = np.asarray(states[i], np.float64)
        for c, values in enumerate(state):
            name = channels[c] if channels else f"channel {c}"
            if (wrong := int((~np.isfinite(values)).sum())) > 0:
                return Departure(i, f"{name} has {wrong:,} values that are not finite.")
            furthest = values.flat[np.argmax(np.abs(values - middle[c]))]
            if abs(furthest - middle[c]) > factor * half[c]:
                return Departure(
                    i,
                    f"{name} reaches {furthest:.4g}, more than {factor:g} times the range of the training data, "
                    f"{seen.low[c]:.4g} to {seen.high[c]:.4g}.",
                )
            variance = float(values.var())
            energy = variance + (float(values.mean()) - seen.mean[c]) ** 2
            for what, value, most in (
                ("energy", energy, seen.most_energy[c]),
                ("variance in space", variance, seen.most_variance[c]),
            ):
                if value > factor**2 * most:
                    return Departure(
                        i,
                        f"{name} has the {what} {value:.4g}, more than {factor**2:g} times the {most:.4g} that all but "
                        f"{TAIL:.1%} of the training states stay below.",
                    )
            if variance < seen.least_variance[c] / factor**2:
                return Departure(
                    i,
                    f"{name} has the variance in space {variance:.4g}, less than 1/{factor**2:g} of the "
                    f"{seen.least_variance[c]:.4g} that all but {TAIL:.1%} of the training states stay above.",
                )
    return None


def far_from_seen(states: NDArray[Any], seen: SeenRange, factor: float = FACTOR) -> NDArray[np.bool_]:
    """Whether a value of each of the states (n, C, *space) is not finite, or further from the middle of the range of
    the training data than `factor` times half of the range: (n,)."""
    values = np.asarray(states, np.float64).reshape(*states.shape[:2], -1)
    middle, half = (seen.high + seen.low) / 2, (seen.high - seen.low) / 2
    return np.asarray(~(np.abs(values - middle[:, None]) <= factor * half[:, None]).all((1, 2)))
