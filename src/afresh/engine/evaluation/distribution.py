"""Distances between two samples of feature vectors, (N, D) and (M, D), with 95% intervals.

Rows must be in random order, since each group of the grouped jackknife consists of every twentieth row. If an interval
is conditional on one of the two samples, the docstring states it. scikit-learn, whose import takes most of a second, is
imported where it is used: training needs distances alone.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.engine.evaluation.estimate import GROUPS, Array, Estimate, jackknife, leave_out, mean, share

CHUNK = 1024  # rows of a distance matrix in memory at once


# --------------------------------------------------------------------------- Frechet distance


def frechet(x: Array, y: Array, interval: bool = True) -> Estimate:
    """Squared Frechet distance between Gaussians fitted to x and y (Heusel et al. 2017, eq. 6).

    |m - m'|^2 + tr(S) + tr(S') - 2 tr((S S')^1/2), where the last trace is computed as the nuclear norm of S^1/2 S'^1/2
    (Dowson and Landau 1982), so that no complex root can appear. Biased upwards by about 1/N: compare only at equal N,
    beside a real-real floor. If N <= D, the sample covariance is singular and is shrunk (Ledoit and Wolf 2004), which
    `note` states. Interval: grouped jackknife over both samples, which takes twenty
    times as long, unless it is not wanted.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    value, note = _frechet(x, y)
    n = min(len(x), len(y))
    if n < 2 * GROUPS or not interval:
        return Estimate(value, None, None, n, note)
    pairs = zip(leave_out(len(x)), leave_out(len(y)), strict=True)
    return Estimate(value, *jackknife(value, [_frechet(x[a], y[b])[0] for a, b in pairs]), n, note)


def _frechet(x: Array, y: Array) -> tuple[float, str]:
    (sx, note_x), (sy, note_y) = _covariance(x), _covariance(y)
    cross = np.linalg.svd(_root(sx) @ _root(sy), compute_uv=False).sum()
    gap = x.mean(0) - y.mean(0)
    return max(0.0, float(gap @ gap + np.trace(sx) + np.trace(sy) - 2 * cross)), note_x or note_y


def _covariance(x: Array) -> tuple[Array, str]:
    n, d = x.shape
    if n > d:
        return np.atleast_2d(np.cov(x, rowvar=False)), ""
    from sklearn.covariance import ledoit_wolf

    shrunk, alpha = ledoit_wolf(x)
    return shrunk, f"covariance shrunk by {alpha:.2f} (Ledoit and Wolf 2004), since N = {n} <= D = {d}"


def _root(s: Array) -> Array:
    """Symmetric square root of a positive semidefinite matrix. Negative eigenvalues, due to rounding, count as 0."""
    values, vectors = np.linalg.eigh(s)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


# --------------------------------------------------------------------------- kernel distance


def kid(x: Array, y: Array) -> Estimate:
    """Squared maximum mean discrepancy under (x.y / D + 1)^3, unbiased (Binkowski et al. 2018, section 4).

    The U-statistic of Gretton et al. 2012, eq. 3, over all rows. Its expectation is 0 for equal distributions, so it
    may be negative. Interval: grouped jackknife over both samples. Raises ValueError for fewer than two rows.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = min(len(x), len(y))
    groups = min(GROUPS, n // 2)
    if groups < 1:
        raise ValueError(f"KID needs at least 2 rows in both samples, not {len(x)} and {len(y)}")
    xx, yy, xy = _block_sums(x, x, groups, True), _block_sums(y, y, groups, True), _block_sums(x, y, groups, False)
    size_x, size_y = _group_sizes(len(x), groups), _group_sizes(len(y), groups)
    value = _mmd(xx, yy, xy, size_x, size_y, np.ones(groups, bool))
    if groups < GROUPS:
        return Estimate(value, None, None, n)
    without = [_mmd(xx, yy, xy, size_x, size_y, np.arange(groups) != g) for g in range(groups)]
    return Estimate(value, *jackknife(value, without), n)


def _group_sizes(n: int, groups: int) -> NDArray[np.int64]:
    return np.bincount(np.arange(n) % groups, minlength=groups)


def _block_sums(x: Array, y: Array, groups: int, same: bool) -> Array:
    """Sums of the kernel over pairs of row groups, (G, G); with `same`, without the pairs of a row with itself."""
    d = x.shape[1]
    out = np.zeros((groups, groups))
    for g in range(groups):
        rows = x[g::groups]
        kernel = (rows @ y.T / d + 1.0) ** 3  # (rows, M)
        out[g] = np.bincount(np.arange(len(y)) % groups, weights=kernel.sum(0), minlength=groups)
        if same:
            out[g, g] -= ((np.einsum("nd,nd->n", rows, rows) / d + 1.0) ** 3).sum()
    return out


def _mmd(
    xx: Array, yy: Array, xy: Array, size_x: NDArray[np.int64], size_y: NDArray[np.int64], keep: NDArray[np.bool_]
) -> float:
    n, m = int(size_x[keep].sum()), int(size_y[keep].sum())
    within = xx[keep][:, keep].sum() / (n * (n - 1)) + yy[keep][:, keep].sum() / (m * (m - 1))
    return float(within - 2 * xy[keep][:, keep].sum() / (n * m))


# --------------------------------------------------------------------------- balls of nearest neighbours


def precision_recall(real: Array, fake: Array, k: int = 3) -> tuple[Estimate, Estimate]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, eqs. 1-3).

    Precision: the share of rows of `fake` that lie within the k-nearest-neighbour ball of some row of `real`; recall:
    the converse. Wilson intervals, conditional on the sample whose balls are used.
    """
    _check_rows(real, fake, k)
    return _covered(fake, real, k), _covered(real, fake, k)


def density_coverage(real: Array, fake: Array, k: int = 5) -> tuple[Estimate, Estimate]:
    """Density and coverage (Naeem et al. 2020, eqs. 3 and 4), both near 1 for equal distributions.

    Density: the mean number of real balls that contain a fake row, divided by k; it can exceed 1. Coverage: the share
    of real balls that contain a fake row, in expectation 1 - prod_i (M - i) / (N + M - i) for equal distributions, so
    report it beside a real-real floor. Intervals are conditional on the balls of the real rows.
    """
    _check_rows(real, fake, k)
    radius = neighbour_radius(real, k)
    balls = np.zeros(len(fake))
    covered = np.zeros(len(real), bool)
    for start in range(0, len(fake), CHUNK):
        inside = distances(fake[start : start + CHUNK], real) <= radius[None]  # (chunk, N)
        balls[start : start + CHUNK] = inside.sum(1)
        covered |= inside.any(0)
    return mean(balls / k), share(int(covered.sum()), len(real))


def neighbour_radius(x: Array, k: int) -> Array:
    """Distance (N,) of every row to its k-th nearest other row."""
    out = np.empty(len(x))
    for start in range(0, len(x), CHUNK):
        d = distances(x[start : start + CHUNK], x)
        d[np.arange(len(d)), start + np.arange(len(d))] = np.inf  # a row is not its own neighbour
        out[start : start + CHUNK] = np.partition(d, k - 1, axis=1)[:, k - 1]
    return out


def distances(x: Array, y: Array) -> Array:
    """Euclidean distances (N, M) in float64."""
    a, b = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(y, dtype=torch.float64)
    return torch.cdist(a, b).numpy()


def _covered(points: Array, centres: Array, k: int) -> Estimate:
    radius = neighbour_radius(centres, k)
    hits = 0
    for start in range(0, len(points), CHUNK):
        hits += int((distances(points[start : start + CHUNK], centres) <= radius[None]).any(1).sum())
    return share(hits, len(points))


def _check_rows(real: Array, fake: Array, k: int) -> None:
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"{k} nearest neighbours need more than {k} rows, not {len(real)} and {len(fake)}")


# --------------------------------------------------------------------------- two-sample tests


def two_sample_linear(x: Array, y: Array, seed: int, folds: int = 5) -> Estimate:
    """Cross-validated accuracy of a logistic regression that separates x from y; 0.5 if they are indistinguishable.

    Classifier two-sample test (Lopez-Paz and Oquab 2017, section 3). Chance is always 0.5, since the larger sample is
    cut to the size of the smaller one.
    """
    from sklearn.linear_model import LogisticRegression

    return cross_validated(LogisticRegression(C=0.1, max_iter=1000), x, y, seed, folds)


def cross_validated(classifier: object, x: Array, y: Array, seed: int, folds: int) -> Estimate:
    """Accuracy of a classifier of scikit-learn over all left-out folds, for features in units of their deviation. The
    Wilson interval is slightly too narrow, since folds share training rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n, generator = min(len(x), len(y)), np.random.default_rng(seed)
    both, side = np.concatenate([v[generator.permutation(len(v))[:n]] for v in (x, y)]), np.repeat([0, 1], n)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # the number of iterations is intended
        predicted = cross_val_predict(make_pipeline(StandardScaler(), classifier), both, side, cv=split)
    return share(int((predicted == side).sum()), len(both))
