"""A surrogate: a model of a column of numbers, with intervals that were checked on values it had not seen.

A Gaussian process and a random forest are compared by the log score of values that were left out (five folds), and the
better one is taken. Its intervals are widened or narrowed until they hold as many of those values as they say
(conformal prediction with the studentised residual as the score: Lei et al. 2018, "Distribution-free predictive
inference for regression", section 5.2; folds as in CV+ of Barber et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from afresh.core import ItemKind, UserError
from afresh.engine.alignment.surrogate import gaussian_process
from afresh.engine.alignment.surrogate.likeness import LIKENESS, Likeness, descriptors_of

TREES = 100


@dataclass(frozen=True, eq=False)
class Forest:
    """A random forest as a posterior: the trees are draws (Hutter et al. 2014, "Algorithm runtime prediction", section
    4). `noise`: the variance of what the trees leave unexplained of values that they have not seen."""

    trees: Any
    noise: float

    def draws(self, rows: Array) -> Array:
        """What each tree says, (TREES, m)."""
        narrow = rows.astype(np.float32)
        return np.stack([tree.predict(narrow) for tree in self.trees.estimators_])

    def posterior(self, rows: Array) -> tuple[Array, Array]:
        """Means (m,) and covariance (m, m)."""
        drawn = self.draws(rows)
        apart = drawn - drawn.mean(0)
        return drawn.mean(0), apart.T @ apart / (len(drawn) - 1)

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Means (m,) and variances (m,), without noise."""
        drawn = self.draws(rows)
        return drawn.mean(0), drawn.var(0, ddof=1)


def fit_forest(rows: Array, values: Array, counts: Array, seed: int = 0) -> Forest:
    """Descriptors (n, D), values (n,), and of how many measurements each value is the mean (n,)."""
    from sklearn.ensemble import RandomForestRegressor

    trees = RandomForestRegressor(TREES, max_features="sqrt", oob_score=True, random_state=seed, n_jobs=1)
    trees.fit(rows.astype(np.float32), values, sample_weight=counts)
    unseen = float(np.mean(np.square(values - trees.oob_prediction_)))
    own = Forest(trees, 0.0)
    spread = float(own.predict(rows[:1000])[1].mean())
    return Forest(trees, max(unseen - spread, 1e-3 * float(values.var())))


Array = NDArray[np.float64]

COVERED = 0.9  # of intervals
Z90 = 1.6448536269514722  # two-sided 90% of a standard normal
FEWEST, FEW = 3, 10  # values; below FEW, intervals are guesses
MANY = 3_000  # values from which on there is a forest alone
COMPARED = 200  # values from which on the forest is tried
FOLDS = 5
SELECTED = 500  # values that are left out in turn, at most
WIDEST, NARROWEST = 10.0, 0.5  # factors of the standard deviation
FEWEST_PAST = 20  # past predictions that say how wide intervals have to be
MOST_WIDENED = 2.0
TINY = 1e-300
FAR = 0.05  # share of known items that are less like their nearest than an item outside of the domain
GAUSSIAN, FOREST = "Gaussian process", "random forest"


class Posterior(Protocol):
    """What a model believes. `noise` is the variance of one measurement."""

    @property
    def noise(self) -> float: ...
    def posterior(self, rows: Array) -> tuple[Array, Array]: ...
    def predict(self, rows: Array) -> tuple[Array, Array]: ...


@dataclass(frozen=True)
class Quality:
    """How values that were left out were predicted: by what, the mean absolute error beside that of predicting the mean
    of the others, the mean log score in nats, and that of the other model if both were tried."""

    model: str
    n: int
    error: float
    error_of_mean: float
    log_score: float
    other: tuple[str, float] | None

    @property
    def useful(self) -> bool:
        return self.error < 0.97 * self.error_of_mean

    def __str__(self) -> str:
        against = "" if self.other is None else f", chosen over a {self.other[0]} ({self.other[1]:.3g})"
        return (
            f"a {self.model} on {self.n:,} values: log score {self.log_score:.3g} nats{against}; mean error "
            f"{self.error:.3g} on values that were left out, {self.error_of_mean:.3g} for predicting their mean"
        )


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of n items: means, standard deviations without and with the noise of a measurement, the ends of 90% intervals of
    what would be measured, the most similar known item and how similar it is (0 to 1)."""

    mean: Array
    sd: Array
    measured_sd: Array
    low: Array
    high: Array
    nearest: NDArray[np.int64]
    similarity: Array


@dataclass(frozen=True, eq=False)
class Surrogate:
    """`known`: distinct measured items; their descriptors `rows` (n, D) and mean `values` (n,), each of `counts`
    measurements. `scale` multiplies every standard deviation."""

    kind: ItemKind
    known: Sequence[Any]
    rows: Array
    values: Array
    counts: Array
    likeness: Likeness
    model: Posterior
    scale: float
    quality: Quality

    def describe(self, items: Sequence[Any]) -> Array:
        """The descriptors (m, D) of items."""
        return descriptors_of(self.kind).vectors(items)

    def predict(self, rows: Array) -> Predictions:
        """What is believed of items with descriptors (m, D)."""
        mean, variance = self.model.predict(rows)
        sd = self.scale * np.sqrt(variance)
        measured = self.scale * np.sqrt(variance + self.model.noise)
        alike = self.likeness.similarity(rows, self.rows)
        nearest = alike.argmax(1)
        ends = mean - Z90 * measured, mean + Z90 * measured
        return Predictions(mean, sd, measured, *ends, nearest, alike[np.arange(len(rows)), nearest])

    def posterior(self, rows: Array) -> tuple[Array, Array]:
        """Means (m,) and covariance (m, m) without noise."""
        mean, covariance = self.model.posterior(rows)
        return mean, self.scale**2 * covariance

    @property
    def noise(self) -> float:
        return self.scale**2 * self.model.noise

    def of_ranks(self, seed: int = 0) -> Surrogate:
        """A surrogate of the normal scores of the values, which are in the same order whatever their scale."""
        return _fitted(self.kind, self.known, self.rows, normal_scores(self.values), self.counts, seed)

    @cached_property
    def domain(self) -> float:
        """The similarity to the nearest other one that all but FAR of the known items have."""
        alike = self.likeness.similarity(self.rows, self.rows)
        np.fill_diagonal(alike, -1.0)
        return float(np.quantile(alike.max(1), FAR))


def widened(surrogate: Surrogate, past: Sequence[tuple[float, float, float, float]]) -> Surrogate:
    """The surrogate with intervals that are as much wider as past predictions (mean, low, high, measured) would have
    needed: proposals were chosen for their predictions, which are further off than those of values that were left out.
    They are never narrowed, since the first batches are often easier to predict than the next. With fewer than
    FEWEST_PAST, nothing changes."""
    if len(past) < FEWEST_PAST:
        return surrogate
    mean, low, high, measured = np.array(past).T
    factor = calibrated(np.abs(measured - mean) * 2 * Z90 / np.maximum(high - low, TINY))
    return replace(surrogate, scale=surrogate.scale * float(np.clip(factor, 1.0, MOST_WIDENED)))


Fit = Callable[[Array, Array, Array], Posterior]


def fit_surrogate(kind: ItemKind, items: Sequence[Any], values: Sequence[float], seed: int = 0) -> Surrogate:
    """Learn a column of numbers. Items that occur several times have the mean of their values.

    Raises UserError for kinds without descriptors, for fewer than three different items, and if all values are equal.
    """
    descriptors = descriptors_of(kind)
    known, mean, counts = merged(kind, items, values)
    if len(known) < FEWEST:
        raise UserError(
            f"A model of measured values needs {FEWEST} different {kind.plural} or more, better {FEW}. Given: "
            f"{len(known)}. Measure others first, such as {kind.plural} drawn from the model.",
            "too_few_values",
        )
    if float(np.ptp(mean)) <= 1e-12 * max(1.0, float(np.abs(mean).max())):
        raise UserError(
            f"All {len(known):,} {kind.plural} have the value {mean[0]:g}: there is nothing to learn from. Check the "
            f"column, or measure {kind.plural} that differ more from these.",
            "constant_values",
        )
    return _fitted(kind, known, descriptors.vectors(known), mean, counts, seed)


def _fitted(kind: ItemKind, known: Sequence[Any], rows: Array, mean: Array, counts: Array, seed: int) -> Surrogate:
    """The better model of mean values (n,) of distinct items, with its calibration."""
    likeness = LIKENESS[descriptors_of(kind).likeness](rows)
    fits: dict[str, Fit] = {}
    if len(known) <= MANY:
        fits[GAUSSIAN] = lambda r, v, c: gaussian_process.fit(r, v, c, likeness, seed)
    if len(known) >= COMPARED:
        fits[FOREST] = lambda r, v, c: fit_forest(r, v, c, seed)
    some = np.random.default_rng(seed).permutation(len(known))[:SELECTED]
    tried = {name: left_out(fit, rows[some], mean[some], counts[some]) for name, fit in fits.items()}
    scores = {name: log_score(mean[some], *found) for name, found in tried.items()}
    best = max(scores, key=lambda name: scores[name])
    predicted, variance = tried[best]
    others = [(name, s) for name, s in scores.items() if name != best]
    n = len(some)
    of_mean = np.abs(mean[some] - (mean[some].sum() - mean[some]) / (n - 1)).mean()
    error = float(np.abs(mean[some] - predicted).mean())
    quality = Quality(best, len(known), error, float(of_mean), scores[best], others[0] if others else None)
    scale = calibrated(np.abs(mean[some] - predicted) / np.sqrt(variance))
    return Surrogate(kind, known, rows, mean, counts, likeness, fits[best](rows, mean, counts), scale, quality)


def normal_scores(values: Array) -> Array:
    """Quantiles of a standard normal distribution at the ranks (n,) of the values, less one half; equal values have the
    mean of their ranks."""
    from scipy.stats import rankdata

    scores: Array = ndtri((rankdata(values) - 0.5) / len(values))
    return scores


def merged(kind: ItemKind, items: Sequence[Any], values: Sequence[float]) -> tuple[list[Any], Array, Array]:
    """Distinct items in their order, the mean value of each, and of how many."""
    found: dict[str, tuple[Any, list[float]]] = {}
    for item, value in zip(items, values, strict=True):
        found.setdefault(kind.digest(item), (item, []))[1].append(float(value))
    each = list(found.values())
    means = np.array([np.mean(v) for _, v in each], dtype=np.float64)
    return [item for item, _ in each], means, np.array([len(v) for _, v in each], dtype=np.float64)


def left_out(fit: Fit, rows: Array, values: Array, counts: Array) -> tuple[Array, Array]:
    """Means and variances (n,) of each value by a model that has not seen it: of FOLDS folds, or one by one of few."""
    n = len(rows)
    folds = np.arange(n) % min(n, n if n < 2 * FEW else FOLDS)
    mean, variance = np.zeros(n), np.zeros(n)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        model = fit(rows[~out], values[~out], counts[~out])
        found, spread = model.predict(rows[out])
        mean[out], variance[out] = found, spread + model.noise / counts[out]
    return mean, np.maximum(variance, 1e-12 * max(1e-12, float(values.var())))


def log_score(values: Array, mean: Array, variance: Array) -> float:
    """The mean log-density in nats of values under calibrated normal distributions."""
    errors = np.abs(values - mean)
    spread = calibrated(errors / np.sqrt(variance)) ** 2 * variance
    return float(np.mean(-0.5 * (np.log(2 * math.pi * spread) + np.square(errors) / spread)))


def calibrated(residuals: Array) -> float:
    """The factor by which standard deviations are multiplied, so that intervals hold COVERED of the values: the
    conformal quantile of the absolute studentised residuals (n,), or the largest of too few."""
    n = len(residuals)
    rank = min(n, math.ceil((n + 1) * COVERED))
    return float(np.clip(np.sort(residuals)[rank - 1] / Z90, NARROWEST, WIDEST))
