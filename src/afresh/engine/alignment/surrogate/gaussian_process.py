"""Gaussian processes on likeness: exact, with hyperparameters by marginal likelihood.

The covariance of two items is signal * kernel, and every value is a mean of `counts` measurements with noise of
one variance. The constant mean is integrated out (restricted likelihood: Rasmussen and Williams 2006, sections 2.7 and
5.4.1). With the eigenvalues of the kernel, the likelihood of each ratio of noise to signal costs O(n), so that the best
is found on a grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from afresh.engine.alignment.surrogate.likeness import Likeness

Array = NDArray[np.float64]

RATIOS = np.geomspace(1e-4, 1e2, 49)  # of noise to signal
USUAL, WIDTH = 0.05, 2.0  # a wide log-normal prior of the ratio: with few values, none is certain
LEAST = 1e-6  # signal, in variances of the values: they may all be equal
SELECTED = 1_000  # values from which shape and ratio are chosen, at most


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """The posterior given descriptors (n, D) of known items and their values."""

    rows: Array
    likeness: Likeness
    shape: float
    signal: float
    noise: float  # variance of one measurement
    mean: float
    weights: Array  # (n,)
    factor: tuple[Array, bool]  # Cholesky factor of the covariance of the known values
    ones: Array  # the inverse covariance times 1, (n,); zeros where the mean is known and not integrated out

    def posterior(self, rows: Array) -> tuple[Array, Array]:
        """Means (m,) and covariance (m, m) of what is measured without noise at descriptors (m, D)."""
        cross, means, lacking = self._cross(rows)
        prior = self.signal * self.likeness.kernel(rows, rows, self.shape)
        return means, prior - cross @ cho_solve(self.factor, cross.T) + np.outer(lacking, lacking) / self._certainty

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Means (m,) and variances (m,), without noise."""
        cross, means, lacking = self._cross(rows)
        prior = self.signal * self.likeness.diagonal(rows, self.shape)
        explained = np.square(solve_triangular(self.factor[0], cross.T, lower=True)).sum(0)
        return means, np.maximum(prior - explained, 0.0) + np.square(lacking) / self._certainty

    @property
    def _certainty(self) -> float:
        """The inverse variance of the mean."""
        return float(self.ones.sum()) or np.inf

    def _cross(self, rows: Array) -> tuple[Array, Array, Array]:
        cross = self.signal * self.likeness.kernel(rows, self.rows, self.shape)
        return cross, self.mean + cross @ self.weights, 1 - cross @ self.ones


def fit(rows: Array, values: Array, counts: Array, likeness: Likeness, seed: int = 0) -> GaussianProcess:
    """Descriptors (n, D), values (n,), and of how many measurements each value is the mean (n,)."""
    centre, unit = float(values.mean()), float(values.std()) or 1.0
    plain = (values - centre) / unit
    some = np.arange(len(rows))
    if len(rows) > SELECTED:
        some = np.random.default_rng(seed).choice(len(rows), SELECTED, replace=False)
    shape, ratio = choose(rows[some], plain[some], counts[some], likeness)
    kernel = likeness.kernel(rows, rows, shape) + np.diag(ratio / counts)
    factor = cho_factor(kernel + 1e-8 * np.eye(len(rows)), lower=True)
    ones = cho_solve(factor, np.ones(len(rows)))
    mean = float(ones @ plain / ones.sum())
    weights = cho_solve(factor, plain - mean)
    signal = unit**2 * max(LEAST, float((plain - mean) @ weights) / max(1, len(values) - 1))
    scaled = (factor[0] * np.sqrt(signal), factor[1])
    return GaussianProcess(
        rows,
        likeness,
        shape,
        signal,
        signal * ratio,
        centre + unit * mean,
        unit * weights / signal,
        scaled,
        ones / signal,
    )


def fit_around_mean(rows: Array, values: Array, likeness: Likeness, shape: float, ratio: float) -> GaussianProcess:
    """A process whose mean is that of the values (n,), and whose shape and ratio of noise to signal were chosen before.
    If all values are equal, so is all that it predicts."""
    mean = float(values.mean())
    factor = cho_factor(likeness.kernel(rows, rows, shape) + (ratio + 1e-6) * np.eye(len(rows)), lower=True)
    weights = cho_solve(factor, values - mean)
    signal = max(float((values - mean) @ weights) / len(values), 0.0)
    scaled = (factor[0] * np.sqrt(signal), factor[1]) if signal else factor
    weights, ones = weights / (signal or 1.0), np.zeros(len(rows))
    return GaussianProcess(rows, likeness, shape, signal, signal * ratio, mean, weights, scaled, ones)


def choose(rows: Array, values: Array, counts: Array, likeness: Likeness) -> tuple[float, float]:
    """The shape of the kernel and the ratio of noise to signal of the highest restricted likelihood."""
    best = (-np.inf, 1.0, USUAL)
    root = np.sqrt(counts)
    for shape in likeness.shapes:
        spectrum, vectors = np.linalg.eigh(root[:, None] * likeness.kernel(rows, rows, shape) * root)
        y, one = vectors.T @ (root * values), vectors.T @ root
        inverse = 1 / (np.maximum(spectrum, 0)[None] + RATIOS[:, None])  # (ratios, n)
        ones = inverse @ np.square(one)
        residual = y - (inverse @ (one * y) / ones)[:, None] * one
        spread = np.maximum((inverse * np.square(residual)).sum(1) / (len(y) - 1), LEAST)
        likelihood = -0.5 * ((len(y) - 1) * np.log(spread) - np.log(inverse).sum(1) + np.log(ones))
        likelihood -= 0.5 * np.square(np.log(RATIOS / USUAL) / WIDTH)
        at = int(likelihood.argmax())
        best = max(best, (float(likelihood[at]), shape, float(RATIOS[at])))
    return best[1], best[2]
