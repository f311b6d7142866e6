"""Gradient-boosted trees on lags, one for each quantile: what is tried first on a table of series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LAGS = (1, 2, 3)  # steps before the first that is forecast
PERIODS = (1, 2, 3, 7)  # whole periods before the step that is forecast
ROWS = 30_000  # that trees are fitted to: a window, a column and a step ahead each
SMALL = 1e-9


def features(past: Array, later: Array, period: int) -> tuple[Array, Array, Array]:
    """What a tree sees of each window, column and step ahead, (N, C, H, F), and the mean and the deviation (N, C, 1) of
    the past, by which it is normalised. past (N, C, P); later (N, E, H): what is known of the steps ahead, such as the
    calendar. Missing values stay NaN, which trees can split on."""
    n, columns, length = past.shape
    horizon = later.shape[-1]
    there = np.isfinite(past)
    count = np.maximum(there.sum(-1, keepdims=True), 1)
    mean = np.nan_to_num(past).sum(-1, keepdims=True) / count
    std = np.sqrt((np.square(np.nan_to_num(past - mean))).sum(-1, keepdims=True) / count)
    std = np.where(std > SMALL, std, 1.0)
    z = (past - mean) / std
    steps = np.arange(horizon)
    rows = [np.broadcast_to(steps, (n, columns, horizon))]
    rows.append(np.broadcast_to(np.arange(columns)[None, :, None], (n, columns, horizon)))
    rows += [np.broadcast_to(z[..., -lag, None], (n, columns, horizon)) for lag in LAGS if lag <= length]
    for number in PERIODS:
        back = length - period * number + steps % period
        rows.append(z[..., back] if back[0] >= 0 else np.full((n, columns, horizon), np.nan))
    rows += [np.broadcast_to(row[:, None], (n, columns, horizon)) for row in later.swapaxes(0, 1)]
    return np.stack(rows, -1), mean, std


def fit(
    past: Array, later: Array, truth: Array, period: int, levels: Sequence[float], seed: int = 0
) -> Callable[[Array, Array], Array]:
    """Trees for the truth (N, C, H) of training windows; returns the function of (past, later) that gives quantiles (Q,
    N, C, H)."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    seen, mean, std = features(past, later, period)
    target = ((truth - mean) / std).ravel()
    seen = seen.reshape(-1, seen.shape[-1])
    known = np.flatnonzero(np.isfinite(target))
    chosen = np.random.default_rng(seed).permutation(known)[:ROWS]
    used = np.flatnonzero(np.isfinite(seen[chosen]).any(0))  # a lag may lie before all windows
    models: list[Any] = [
        HistGradientBoostingRegressor(loss="quantile", quantile=p, max_iter=100, random_state=seed).fit(
            seen[np.ix_(chosen, used)], target[chosen]
        )
        for p in levels
    ]

    def predict(past: Array, later: Array) -> Array:
        seen, mean, std = features(past, later, period)
        shape, rows = seen.shape[:-1], seen.reshape(-1, seen.shape[-1])[:, used]
        drawn = np.stack([m.predict(rows).reshape(shape) for m in models])
        order = np.argsort(levels)
        drawn[order] = np.sort(drawn, 0)  # so that they do not cross
        return drawn * std + mean

    return predict
