"""How good forecasts are: quantile loss, scaled errors and the coverage of intervals. Values that are missing (NaN) are
not counted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVELS = tuple(i / 10 for i in range(1, 10))  # of the weighted quantile loss, as in GIFT-Eval
INTERVALS = {0.5: (0.25, 0.75), 0.9: (0.05, 0.95)}  # the quantiles between which so large a share of the truth lies


def quantile_losses(quantiles: Array, truth: Array, levels: Sequence[float] = LEVELS) -> tuple[Array, Array]:
    """Of each of N forecasts, the sum of 2 (y - q) (p - [y < q]) over its values, averaged over quantiles, and the sum
    of |y|, both (N,). quantiles (Q, N, ...), truth (N, ...).

    The sum of the first over that of the second is the mean weighted quantile loss of gluonts (Alexandrov et al. 2020,
    JMLR 21:116, `mean_weighted_sum_quantile_loss`), by which GIFT-Eval (Aksu et al. 2024) approximates the CRPS.
    """
    p = np.asarray(levels).reshape(-1, *[1] * truth.ndim)
    error = truth - quantiles
    loss = np.nan_to_num(2 * np.maximum(p * error, (p - 1) * error)).mean(0)
    rows = len(truth)
    return loss.reshape(rows, -1).sum(1), np.abs(np.nan_to_num(truth)).reshape(rows, -1).sum(1)


def seasonal_error(past: Array, period: int) -> Array:
    """The mean absolute difference of values (..., P) one period apart, (...); NaN where none can be compared."""
    if past.shape[-1] <= period:
        return np.full(past.shape[:-1], np.nan)
    difference = np.abs(past[..., period:] - past[..., :-period])
    count = np.isfinite(difference).sum(-1)
    return np.asarray(np.nan_to_num(difference).sum(-1) / np.where(count > 0, count, np.nan))


def scaled_errors(median: Array, truth: Array, past: Array, period: int) -> Array:
    """The mean absolute scaled error of each forecast of each column (N, C): the mean absolute error of the median (N,
    C, H) divided by `seasonal_error` of the values before (N, C, P) (Hyndman and Koehler 2006, eq. 3, with the seasonal
    difference, as gluonts has it). NaN where the past never changes from one period to the next."""
    error = np.abs(truth - median)
    count = np.isfinite(error).sum(-1)
    mean = np.nan_to_num(error).sum(-1) / np.where(count > 0, count, np.nan)
    scale = seasonal_error(past, period)
    return np.asarray(mean / np.where(scale > 0, scale, np.nan))


def held(low: Array, high: Array, truth: Array) -> tuple[Array, Array]:
    """How many values (N, ...) of each forecast lie within [low, high], and how many there are, (N,) each."""
    there = np.isfinite(truth)
    inside = there & (truth >= low) & (truth <= high)
    rows = len(truth)
    return inside.reshape(rows, -1).sum(1).astype(float), there.reshape(rows, -1).sum(1).astype(float)


def by_season(past: Array, period: int) -> Array:
    """Values (..., P) as seasons (..., S, period), of which the last one ends with them; NaN before the first value."""
    rows = -(-past.shape[-1] // period)
    grid = np.full((*past.shape[:-1], rows * period), np.nan)
    grid[..., rows * period - past.shape[-1] :] = past
    return grid.reshape(*past.shape[:-1], rows, period)


def or_mean(values: Array, past: Array) -> Array:
    """Values (..., n) with the mean of the past (..., P), or 0, where one is missing."""
    mean = np.nan_to_num(past).sum(-1) / np.maximum(np.isfinite(past).sum(-1), 1)
    return np.where(np.isnan(values), mean[..., None], values)


def seasonal_naive(past: Array, period: int, horizon: int, levels: Sequence[float]) -> Array:
    """Quantiles (Q, ..., H) of the forecast that repeats the last period of values (..., P): normal around it, with
    variance s^2 (k + 1) in the k-th repetition, where s^2 is the mean square of differences one period apart (Hyndman
    and Athanasopoulos 2021, Forecasting, sec. 5.5). Missing values have those of earlier periods in their place."""
    grid = by_season(past, period)
    last = grid[..., -1, :]
    for back in range(2, grid.shape[-2] + 1):
        last = np.where(np.isnan(last), grid[..., -back, :], last)
    last = or_mean(last, past)
    difference = past[..., period:] - past[..., :-period] if past.shape[-1] > period else np.full_like(past, np.nan)
    count = np.maximum(np.isfinite(difference).sum(-1), 1)
    spread = np.sqrt(np.square(np.nan_to_num(difference)).sum(-1) / count)[..., None]
    steps = np.arange(horizon)
    point, growth = last[..., steps % period], np.sqrt(steps // period + 1.0)
    return np.stack([point + NormalDist().inv_cdf(p) * spread * growth for p in levels])


def seasonal_quantiles(past: Array, period: int, horizon: int, levels: Sequence[float], seasons: int = 4) -> Array:
    """Quantiles (Q, ..., H) of the values at the same place in the last few seasons of values (..., P), with linear
    interpolation. Missing values are not counted; where all are missing, the mean of the past stands."""
    grid = np.moveaxis(by_season(past, period)[..., -seasons:, :], -2, 0)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # places without any value
        found = np.nanquantile(grid, levels, axis=0)
    return np.stack([or_mean(f, past)[..., np.arange(horizon) % period] for f in found])
