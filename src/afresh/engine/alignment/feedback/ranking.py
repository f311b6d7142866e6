"""Ranks candidates by votes, chooses the next pairs to ask about, and measures the calibration of predictions.

Every candidate has a strength s (Bradley and Terry 1952), in logits: a beats b with probability sigmoid(s_a - s_b). A
tie counts as half a win for each. The separate parameter for ties of Davidson 1970 is not used: it hardly changes which
candidate is predicted to win, while half wins give a concave problem whose probabilities are those of the two outcomes
that training and accuracy need. A disadvantage is that a tie reduces the variance of strengths as much as a decided
vote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Score, UserError
from afresh.engine.alignment.feedback.preferences import Candidate, Pair, Vote

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SPREAD = 1.0  # standard deviation of strengths before any vote, in logits
MAX_CANDIDATES = 5000  # their covariance takes 200 MB
MAX_STEPS = 100  # of Newton's method; about twelve are usual
Z95 = 1.959963984540054  # two-sided 95% of a standard normal
PROBIT_SLOPE = np.sqrt(np.pi / 8)  # sigmoid(x) is approximated by ndtr(PROBIT_SLOPE x), with equal slopes at 0
# C^2 of Houlsby et al. 2011: an outcome of probability ndtr(x) has about exp(-x^2 / (2 C^2)) bits of entropy.
ENTROPY_WIDTH2 = np.pi * np.log(2) / 2
SCORES = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class Duels:
    """N votes on K candidates: the indices (N,) of both, and the score (N,) of the first: 1, 0, or 0.5 for a tie."""

    names: tuple[Candidate, ...]
    first: Index
    second: Index
    score: Array


@dataclass(frozen=True)
class Strengths:
    """The normal posterior of K strengths: mean (K,) and covariance (K, K), in logits.

    Only differences of strengths are meaningful; the mean of the prior, 0, fixes the origin.
    """

    names: tuple[Candidate, ...]
    mean: Array
    covariance: Array
    votes: int

    def order(self) -> list[tuple[Candidate, float, float]]:
        """Candidates from the strongest on, each with its strength and standard deviation."""
        best = np.argsort(-self.mean, kind="stable")
        deviation = np.sqrt(np.diag(self.covariance))
        return [(self.names[i], float(self.mean[i]), float(deviation[i])) for i in best]


@dataclass(frozen=True)
class PairQuestion:
    """A pair to ask about, and the expected information of the answer about the strengths, in bits."""

    pair: Pair
    gain: float


def logistic(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    from scipy.special import expit  # here: a server on which nothing is voted starts earlier

    return expit(x)


def duels_of(votes: Iterable[Vote], also: Iterable[Candidate] = ()) -> Duels:
    """Votes by indices of candidates; `also` are candidates that may have no votes yet."""
    index: dict[Candidate, int] = {}
    rows = []
    for v in votes:
        one, other = Candidate(v.a, v.prompt, v.label), Candidate(v.b, v.prompt, v.label)
        rows.append((index.setdefault(one, len(index)), index.setdefault(other, len(index)), SCORES[v.winner]))
    for candidate in also:
        index.setdefault(candidate, len(index))
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    return Duels(tuple(index), table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2])


# --------------------------------------------------------------------------- strengths


def log_posterior(duels: Duels, strengths: Array, spread: float = SPREAD) -> float:
    """The log posterior of strengths (K,), up to a constant, in nats: Bradley and Terry 1952 with a normal prior."""
    d = strengths[duels.first] - strengths[duels.second]
    votes = duels.score * np.logaddexp(0, -d) + (1 - duels.score) * np.logaddexp(0, d)
    return -float(votes.sum()) - float(strengths @ strengths) / (2 * spread**2)


def derivatives(duels: Duels, strengths: Array, spread: float = SPREAD) -> tuple[Array, Array]:
    """The gradient (K,) of the log posterior, and its negative Hessian (K, K)."""
    i, j, k = duels.first, duels.second, len(strengths)
    p = logistic(strengths[i] - strengths[j])
    gradient = -strengths / spread**2
    gradient += np.bincount(i, duels.score - p, k) - np.bincount(j, duels.score - p, k)
    weights = np.bincount(i * k + j, p * (1 - p), k * k).astype(np.float64).reshape(k, k)
    weights += weights.T.copy()
    curvature = np.asarray(np.diag(weights.sum(1) + 1 / spread**2) - weights, dtype=np.float64)
    return gradient, curvature


def fit(duels: Duels, spread: float = SPREAD) -> Strengths:
    """The most probable strengths given votes and a normal prior of standard deviation `spread`, by Newton's method.

    Their covariance is the Laplace approximation (Tierney and Kadane 1986), the inverse of the negative Hessian. Raises
    UserError if there are no candidates or too many, or if `spread` is not above 0.
    """
    k = len(duels.names)
    if not 0 < k <= MAX_CANDIDATES:
        raise UserError(
            f"Ranking takes from 1 to {MAX_CANDIDATES:,} candidates, not {k:,}. Rank those of fewer prompts together."
        )
    if not (0 < spread < np.inf):
        raise UserError(f"The spread of strengths must be a finite number of logits above 0. Given: {spread}.")
    mean = np.zeros(k)
    value = log_posterior(duels, mean, spread)
    for _ in range(MAX_STEPS):
        gradient, curvature = derivatives(duels, mean, spread)
        step = np.linalg.solve(curvature, gradient)
        # A full step may overshoot with many votes and a wide prior. Halving it succeeds, as the function is concave.
        while (next_value := log_posterior(duels, mean + step, spread)) < value - 1e-12 * abs(value):
            step = step / 2
        mean, value = mean + step, next_value
        if np.abs(step).max() < 1e-10:
            break
    else:
        raise AssertionError(f"Newton's method did not converge in {MAX_STEPS} steps")
    covariance = np.asarray(np.linalg.inv(derivatives(duels, mean, spread)[1]), dtype=np.float64)
    return Strengths(duels.names, mean, covariance, len(duels.score))


def left_out(duels: Duels, fitted: Strengths) -> Array:
    """For each vote (N,), the difference of strengths of its two candidates given all other votes, in logits.

    One step of Newton's method from the mode of all votes (Pregibon 1981, the one-step estimate).
    """
    i, j = duels.first, duels.second
    d, h = difference(fitted, i, j)
    p = logistic(d)
    return np.asarray(d - h * (duels.score - p) / (1 - p * (1 - p) * h))


# --------------------------------------------------------------------------- predictions


def difference(strengths: Strengths, i: Index, j: Index) -> tuple[Array, Array]:
    """Mean and variance of s_i - s_j for pairs of indices (M,)."""
    c = strengths.covariance
    variance = c[i, i] + c[j, j] - 2 * c[i, j]
    return strengths.mean[i] - strengths.mean[j], np.maximum(variance, 0)


def information(mean: Array, variance: Array) -> Array:
    """The information in bits of one answer about d ~ N(mean, variance), if a wins with probability sigmoid(d).

    It is the entropy of the answer minus its expected entropy given d (BALD; Houlsby et al. 2011), with the sigmoid
    approximated by a probit. The error is at most 0.003 bits for a probit and 0.04 bits for a sigmoid; never below 0.
    """
    m, v = PROBIT_SLOPE * mean, PROBIT_SLOPE**2 * variance
    from scipy.special import ndtr, xlogy

    p = ndtr(m / np.sqrt(v + 1))
    entropy = -(xlogy(p, p) + xlogy(1 - p, 1 - p)) / np.log(2)
    known = np.sqrt(ENTROPY_WIDTH2 / (v + ENTROPY_WIDTH2)) * np.exp(-(m**2) / (2 * (v + ENTROPY_WIDTH2)))
    return np.asarray(np.maximum(entropy - known, 0))


def comparable(names: Sequence[Candidate]) -> tuple[Index, Index]:
    """Indices (M,), (M,) of all pairs of candidates with the same prompt and label."""
    groups: dict[tuple[str | None, str | None], list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault((name.prompt, name.label), []).append(i)
    one, other = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for members in groups.values():
        rows, columns = np.triu_indices(len(members), 1)
        one.append(np.array(members, dtype=np.int64)[rows])
        other.append(np.array(members, dtype=np.int64)[columns])
    return np.concatenate(one), np.concatenate(other)


def ask(strengths: Strengths, n: int, asked: Collection[Pair] = ()) -> list[PairQuestion]:
    """The next n pairs to ask about, the most informative first, without those in `asked`; fewer if no more are left.

    A rater who sees a pair again gives the same answer, which has no information. Each pair is chosen as if the pairs
    before it had been answered: an answer adds p (1 - p) to the negative Hessian either way, so that the future
    covariance is known (a Sherman-Morrison update), while the expected strengths do not change.
    """
    i, j = comparable(strengths.names)
    index = {name: k for k, name in enumerate(strengths.names)}
    k, known = len(index), [p.candidates for p in asked]
    done = [(index[a], index[b]) for a, b in known if a in index and b in index]
    free = ~np.isin(np.minimum(i, j) * k + np.maximum(i, j), [min(d) * k + max(d) for d in done])
    i, j = i[free], j[free]
    now, out = strengths, []
    open_ = np.ones(len(i), dtype=bool)
    for _ in range(min(n, len(i))):
        mean, variance = difference(now, i, j)
        gain = np.where(open_, information(mean, variance), -1.0)
        best = int(gain.argmax())
        open_[best] = False
        a, b = now.names[i[best]], now.names[j[best]]
        out.append(PairQuestion(Pair.of(a.item, b.item, a.prompt, a.label), float(gain[best])))
        p = float(logistic(mean[best]))
        c = now.covariance[:, i[best]] - now.covariance[:, j[best]]
        shrunk = now.covariance - np.outer(c, c) * (p * (1 - p) / (1 + p * (1 - p) * variance[best]))
        now = Strengths(now.names, now.mean, shrunk, now.votes)
    return out


# --------------------------------------------------------------------------- held-out votes


@dataclass(frozen=True)
class Bin:
    """The n predictions with a confidence in [low, high): the mean prediction, and the observed share."""

    low: float
    high: float
    n: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Calibration:
    """The quality of predicted preferences. The floor of `error` is that of a perfect predictor with as many votes."""

    accuracy: Score
    error: Score
    table: tuple[Bin, ...]


def _share(hits: float, n: int) -> tuple[float, float]:
    """The interval of a share (Wilson 1927); hits may count half."""
    p, z2 = hits / n, Z95**2
    half = Z95 * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)))
    return max(0.0, (p + z2 / (2 * n) - half) / (1 + z2 / n)), min(1.0, (p + z2 / (2 * n) + half) / (1 + z2 / n))


def _gap(which: Index, sure: Array, came: Array, bins: int) -> float:
    """The expected calibration error: |predicted - observed| of each bin, weighted by its number of predictions."""
    return float(np.abs(np.bincount(which, sure - came, bins)).sum()) / len(sure)


def calibration(predicted: Array, score: Array, bins: int = 5, seed: int = 0) -> Calibration:
    """Compare predicted probabilities (N,) that the first wins with its scores (N,): 1, 0, or 0.5 for a tie.

    Ties are left out. Each prediction is that of its more probable side, so that the order of sides does not matter;
    confidences from 0.5 to 1 are divided into equal bins (Guo et al. 2017, eq. 3: the expected calibration error). A
    prediction of 0.5 counts half in the accuracy. Raises UserError if no vote has a winner, or if a prediction is not
    in [0, 1].
    """
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise UserError("Predicted preferences must be probabilities from 0 to 1. Some are outside or NaN.")
    ties = score == 0.5
    p, y = predicted[~ties], score[~ties]
    if not (n := len(p)):
        raise UserError("No held-out vote has a winner, so accuracy is not defined. Collect votes that are not ties.")
    sure, came = np.maximum(p, 1 - p), np.where(p >= 0.5, y, 1 - y)
    hits = float(np.where(p == 0.5, 0.5, came).sum())
    which = np.minimum(((sure - 0.5) * 2 * bins).astype(np.int64), bins - 1)
    drawn = np.random.default_rng(seed).random((100, n)) < sure
    floor = float(np.mean([_gap(which, sure, d.astype(np.float64), bins) for d in drawn]))
    table = []
    for b in range(bins):
        if m := int((here := which == b).sum()):
            ends = 0.5 + b / (2 * bins), 0.5 + (b + 1) / (2 * bins)
            table.append(Bin(*ends, m, float(sure[here].mean()), float(came[here].mean())))
    return Calibration(
        Score("accuracy", hits / n, *_share(hits, n), n, "higher", control=0.5),
        Score("calibration_error", _gap(which, sure, came, bins), None, None, n, "lower", floor),
        tuple(table),
    )
