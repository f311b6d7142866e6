"""How near rollouts are to the truth: point scores of one prediction, and scores of an ensemble.

The truth is (trajectories, time, channels, *space), a rollout of one prediction the same, and an ensemble has one axis
more, for its members, before those. Time begins at lead 1: the state from which a rollout began is not part of it. Any
array that is indexed as NumPy's are will do, such as one that is mapped from a file: it is read a block at a time. A
score is an array (trajectories, time, channels), averaged over space, or
(trajectories, time) where it is one of whole states. `over_trajectories` averages it and gives the interval:
trajectories are what is independent, while points and leads of one trajectory are not. Scores with the units of a
channel (absolute error, CRPS) are averaged over channels only where the fields are normalised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from afresh.core import UserError
from afresh.engine.evaluation.estimate import Z95, Array, Estimate, mean, ratio

THRESHOLD = 0.8  # of the correlation, in the papers that report a time of correlation
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


# --------------------------------------------------------------------------- one prediction


def vrmse(prediction: NDArray[Any], truth: NDArray[Any]) -> Array:
    """The root mean squared error over space divided by the truth's standard deviation over space.

    Ohana et al. 2024, the Well, NeurIPS. It is taken of each state and channel by itself, as (trajectories, time,
    channels), and the Well averages it over these: a vector field is as many channels as it has components. The mean of
    the truth, as a prediction, scores 1. Departures: there is no 1e-7 beside the variance, which would flatter fields
    of small numbers, so that where the truth is constant in space the score is NaN; and the variance is divided by n,
    as in the paper's formula, while its code divides by n - 1.
    """
    scores = np.empty(truth.shape[:3])
    for block in prediction_blocks(prediction, truth):
        space = space_axes(block.truth, 2)
        scale = _deviation(block.truth, space, _precision(truth))
        scores[block.place] = _quotient(_size(block.predicted[0] - block.truth, space), scale)
    return scores


def relative_l2(prediction: NDArray[Any], truth: NDArray[Any]) -> Array:
    """The norm of the error divided by that of the truth, of whole states: (trajectories, time).

    Li et al. 2021, the Fourier neural operator, ICLR. Channels are summed, so that one of large values decides unless
    the fields are normalised. NaN where the truth is zero.
    """
    scores = np.empty(truth.shape[:2])
    for block in prediction_blocks(prediction, truth):
        state = tuple(range(1, block.truth.ndim))
        error = np.sqrt(np.sum((block.predicted[0] - block.truth) ** 2, axis=state))
        scores[block.place] = _quotient(error, np.sqrt(np.sum(block.truth**2, axis=state)))
    return scores


def absolute_error(prediction: NDArray[Any], truth: NDArray[Any]) -> Array:
    """The mean absolute error over space, (trajectories, time, channels), in units of the channel: the CRPS of a
    prediction without spread."""
    scores = np.empty(truth.shape[:3])
    for block in prediction_blocks(prediction, truth):
        scores[block.place] = np.abs(block.predicted[0] - block.truth).mean(axis=space_axes(block.truth, 2))
    return scores


def correlation(prediction: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Pearson's correlation over space of the prediction with the truth, (trajectories, time, channels).

    As in Lippe et al. 2023, PDE-Refiner, NeurIPS, whose code puts the channels of a state together; here each is by
    itself, as in APEBench, whose code leaves out the centring. All three agree for one channel of mean zero. A
    prediction that is constant in space has the correlation 0; where the truth is, it is NaN.
    """
    scores = np.empty(truth.shape[:3])
    for block in prediction_blocks(prediction, truth):
        space, predicted = space_axes(block.truth, 2), block.predicted[0]
        product = predicted * (block.truth - block.truth.mean(axis=space, keepdims=True))
        of_predicted = _deviation(predicted, space, _precision(prediction))
        of_truth = _deviation(block.truth, space, _precision(truth))
        value = _quotient(product.mean(axis=space), of_predicted * of_truth)
        scores[block.place] = np.where((of_truth > 0) & (of_predicted == 0), 0.0, value)
    return scores


@dataclass(frozen=True)
class CorrelationTimes:
    """`times` (trajectories,), in units of `step`; `censored` (trajectories,): the correlation was high to the end, so
    that the true time is longer than the one given."""

    times: Array
    censored: NDArray[np.bool_]

    def estimate(self) -> Estimate:
        """The mean time, a lower bound where some are censored, which the note says."""
        estimate, last = over_trajectories(self.times), int(self.censored.sum())
        if not last:
            return estimate
        return replace(estimate, note=f"a lower bound: {last} of {len(self.times)} reach the end of the rollout")


def correlation_times(correlations: Array, step: float = 1.0, threshold: float = THRESHOLD) -> CorrelationTimes:
    """How long the correlation stays above a threshold: the time at which it first falls to it.

    correlations: (trajectories, time) or, averaged over channels, (trajectories, time, channels). step: the time
    between two states. The correlation is 1 at time 0, when the rollout begins at the truth, and linear between steps.
    Lippe et al. 2023 count the steps at which the correlation averaged over trajectories is above the threshold: for a
    number like theirs give the average as one trajectory, `correlations.mean(0, keepdims=True)`. Raises UserError if a
    correlation is not defined before it has fallen.
    """
    curves = correlations if correlations.ndim == 2 else correlations.mean(-1)
    times, censored = np.empty(len(curves)), np.zeros(len(curves), np.bool_)
    for i, curve in enumerate(curves):
        below = np.flatnonzero(~(curve > threshold))  # also of NaN
        if not len(below):
            times[i], censored[i] = len(curve) * step, True
            continue
        end = int(below[0])
        if math.isnan(curve[end]):
            raise UserError(
                f"The correlation of trajectory {i} is not defined at step {end + 1:,}, where the truth is constant in "
                f"space. Score the first {end:,} steps, or channels that vary."
            )
        before = curve[end - 1] if end else 1.0
        times[i] = step * (end + (before - threshold) / (before - curve[end]))
    return CorrelationTimes(times, censored)


def _size(values: Array, space: tuple[int, ...]) -> Array:
    """The root of the mean square."""
    return np.sqrt(np.mean(values**2, axis=space))


def _deviation(values: Array, space: tuple[int, ...], precision: float) -> Array:
    """The standard deviation; 0 where it is no more than rounding errors of values so large."""
    deviation = np.std(values, axis=space)
    return np.where(deviation > precision * _size(values, space), deviation, 0.0)


def _precision(values: NDArray[Any]) -> float:
    """The relative size of rounding errors, of the values themselves and of the sums over them."""
    kind, sums = np.dtype(values.dtype), 16 * float(np.finfo(np.float64).eps)
    return max(float(np.finfo(kind).eps), sums) if kind.kind == "f" else sums


def _quotient(top: Array, bottom: Array) -> Array:
    """NaN where the bottom is 0."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), np.nan)


# --------------------------------------------------------------------------- ensembles


def crps(ensemble: NDArray[Any], truth: NDArray[Any], alpha: float = 1.0) -> Array:
    """The continuous ranked probability score, (trajectories, time, channels), in units of the channel.

    The mean of |x_i - y| less (1 - (1 - alpha) / M) / (2 M (M - 1)) times the sum of |x_i - x_j| over all M^2 pairs.
    alpha = 1 is the fair score (Ferro 2014; Zamo and Naveau 2018), whose expectation is that of an
    ensemble without end, whatever M; alpha = 0.95 the almost fair one (Lang et al. 2024, AIFS-CRPS), which is
    used for training since the fair one cannot see M - 1 members at the truth and one anywhere; alpha = 0 the one of
    the ensemble's own distribution, which is larger for smaller M. The sum over pairs is that of the sorted members by
    2 k - M - 1, in M log M.
    """
    members = len(ensemble)
    scores = np.empty(truth.shape[:3])
    for block in ensemble_blocks(ensemble, truth):
        error = np.abs(block.predicted - block.truth).mean(0)
        weights = (2 * np.arange(1, members + 1) - members - 1) / (members * (members - 1))
        spread = np.tensordot(weights, np.sort(block.predicted, axis=0), 1)  # half the mean distance of two members
        score = error - (1 - (1 - alpha) / members) * spread
        scores[block.place] = score.mean(axis=space_axes(block.truth, 2))
    return scores


# --------------------------------------------------------------------------- means over trajectories


def over_trajectories(top: Array, bottom: Array | None = None) -> Estimate:
    """The mean over trajectories (N,), or the ratio of two means, with a 95% interval by Student's t with N - 1 degrees
    of freedom: trajectories are often few. NaN where it is not defined, in which case the trajectory is left out."""
    known = np.isfinite(top) if bottom is None else np.isfinite(top) & np.isfinite(bottom)
    n, missing = int(known.sum()), int((~known).sum())
    note = f"not defined in {missing} of {len(known)} trajectories" if missing else ""
    if n == 0 or (bottom is not None and not np.sum(bottom[known])):
        return Estimate(math.nan, None, None, n, note or "the reference is 0")
    estimate = mean(top[known]) if bottom is None else ratio(top[known], bottom[known])
    if estimate.low is None:
        return replace(estimate, note=note)
    half = (estimate.value - estimate.low) * float(stdtrit(n - 1, 0.975)) / Z95
    return Estimate(estimate.value, estimate.value - half, estimate.value + half, n, note)
