"""Whether the spread of an ensemble is as large as its error: spread against skill, ranks of the truth, coverage.

An ensemble is calibrated if the truth could be one more member: the two are exchangeable. Everything here is exact for
ensembles of any size M >= 2 under that condition alone. Shapes are those of `scores`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.domains.field.scores import ensemble_blocks, over_trajectories, space_axes
from afresh.engine.evaluation.estimate import Array, Estimate, bootstrap

DRAWS = 2000  # of exchanges of the truth with members


# --------------------------------------------------------------------------- spread and skill


@dataclass(frozen=True)
class Spread:
    """What the ensemble says its error is, and what it is: both (trajectories, time, channels), averaged over space.

    variance: the unbiased variance of the members times (M + 1) / M. error: the squared error of the ensemble's mean.
    Their expectations are equal if the ensemble is calibrated.
    """

    variance: Array
    error: Array


def spread_and_error(ensemble: NDArray[Any], truth: NDArray[Any]) -> Spread:
    variance, error = np.empty(truth.shape[:3]), np.empty(truth.shape[:3])
    for block in ensemble_blocks(ensemble, truth):
        space, members = space_axes(block.truth, 2), len(block.predicted)
        variance[block.place] = block.predicted.var(axis=0, ddof=1).mean(axis=space) * (members + 1) / members
        error[block.place] = np.mean((block.predicted.mean(0) - block.truth) ** 2, axis=space)
    return Spread(variance, error)


def spread_skill(spread: Spread) -> tuple[Estimate, ...]:
    """The spread divided by the error of the mean at each lead: 1 if calibrated, below if the spread is too small.

    Fortin et al. 2014, why should ensemble spread match the RMSE of the ensemble mean: the root of the ratio of
    means, since a mean of roots or of ratios is biased; with the variance divided by M, their factor is
    (M + 1) / (M - 1). Channels are summed, so normalise the fields first. NaN where there is no error at all.
    """
    ratios = (
        over_trajectories(spread.variance[:, lead].mean(-1), spread.error[:, lead].mean(-1))
        for lead in range(spread.error.shape[1])
    )
    return tuple(replace(r, value=_root(r.value), low=_end(r.low), high=_end(r.high)) for r in ratios)


def _root(value: float) -> float:
    return math.sqrt(max(0.0, value)) if math.isfinite(value) else value


def _end(value: float | None) -> float | None:
    return None if value is None else _root(value)


# --------------------------------------------------------------------------- ranks


@dataclass(frozen=True)
class Ranks:
    """How often the truth is larger than 0, 1, ... M of the members, as shares of all channels and points.

    shares: (trajectories, time, M + 1). exchanged: (trajectories, M + 1, M + 1), over all leads, where the second axis
    says which one was held for the truth, the truth itself (0) or a member, and the third the rank it has among the
    others.
    """

    shares: Array
    exchanged: Array


def ranks(ensemble: NDArray[Any], truth: NDArray[Any], seed: int = 0) -> Ranks:
    """The ranks of the truth among the members. The order of equal values is drawn at random (Hamill 2001,
    interpretation of rank histograms), as for a concentration that is 0 in all of them."""
    generator = np.random.default_rng(seed)
    count = len(ensemble) + 1
    shares = np.empty((*truth.shape[:2], count))
    exchanged = np.zeros((len(truth), count, count))
    points = int(np.prod(truth.shape[2:]))
    for block in ensemble_blocks(ensemble, truth):
        leads = len(block.truth)
        everyone = np.concatenate([block.truth[None], block.predicted]).reshape(count, leads * points).T
        order = np.argsort(everyone, axis=-1)  # which one has each rank, (leads * points, count)
        tied = (np.diff(np.take_along_axis(everyone, order, -1), axis=-1) == 0).any(-1)
        order[tied] = np.lexsort((generator.random((int(tied.sum()), count)), everyone[tied]), axis=-1)
        shares[block.place] = (order == 0).reshape(leads, points, count).mean(1)
        cells = order * count + np.arange(count)
        exchanged[block.trajectory] += np.bincount(cells.ravel(), minlength=count * count).reshape(count, count)
    return Ranks(shares, exchanged / (truth.shape[1] * points))


@dataclass(frozen=True)
class RankHistogram:
    """How often each rank occurs, over trajectories and leads, and whether the histogram is flat.

    unevenness: half the sum of the differences from 1 / (M + 1), which is the share of truths that would need another
    rank: 0 if flat. expected: the mean unevenness of a calibrated ensemble of the same trajectories, which is above 0.
    p: the chance that a calibrated ensemble is at least as uneven.
    """

    shares: tuple[Estimate, ...]
    unevenness: float
    expected: float
    p: float


def rank_histogram(ranks: Ranks, seed: int = 0, draws: int = DRAWS) -> RankHistogram:
    """The histogram of ranks with a test of calibration that needs no independent points.

    A chi-square test would count every point and lead as independent, and so find any ensemble uncalibrated. Here, in
    each trajectory the truth is exchanged for one of the members or itself, at random and as a whole, which changes
    nothing if the ensemble is calibrated, however points and leads depend on one another: a randomisation test (Lehmann
    and Romano 2005, testing statistical hypotheses, section 15.2), exact for any number of trajectories.
    """
    trajectories, count, _ = ranks.exchanged.shape
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, count, (draws, trajectories))
    drawn = sum(ranks.exchanged[i][chosen[:, i]] for i in range(trajectories)) / trajectories  # (draws, count)
    observed = ranks.exchanged[:, 0]  # (trajectories, count)
    calibrated, unevenness = _unevenness(drawn), float(_unevenness(observed.mean(0)))
    p = (1 + int(np.sum(calibrated >= unevenness - 1e-12))) / (1 + draws)
    return RankHistogram(
        tuple(over_trajectories(column) for column in observed.T), unevenness, float(calibrated.mean()), p
    )


def _unevenness(shares: Array) -> Array:
    return np.abs(shares - 1 / shares.shape[-1]).sum(-1) / 2


# --------------------------------------------------------------------------- coverage


def coverage(ranks: Ranks, share: float) -> tuple[Estimate, ...]:
    """How often, at each lead, the central interval of a share such as 0.5 or 0.9 holds the truth.

    From the k-th smallest to the k-th largest of M members lie (M + 1 - 2k) / (M + 1) of the truths of a calibrated
    ensemble, whatever its distribution; k = 0 is the whole line. For another share, k = (M + 1) (1 - share) / 2 is no
    whole number, and what the intervals of the k below and above hold is weighted so that a calibrated ensemble of any
    M holds exactly the share. It is the coverage of single values, and says nothing of
    whether a whole state lies inside.
    """
    weights = _held(ranks.shares.shape[-1], share)
    return tuple(bootstrap(column) for column in (ranks.shares @ weights).T)


def _held(count: int, share: float) -> Array:
    """For each rank (M + 1,), the weight with which the interval holds a truth of that rank."""
    k = math.floor(count * (1 - share) / 2 + 1e-9)  # so that rounding errors make no whole number a smaller one
    wide, narrow = ((count - 2 * i) / count for i in (k, k + 1))  # what the intervals of k and of k + 1 hold
    weight = max(0.0, (wide - share) / (wide - max(0.0, narrow)))
    nearest_end = np.minimum(np.arange(count), np.arange(count)[::-1])
    return (1 - weight) * (nearest_end >= k) + weight * (nearest_end > k)
