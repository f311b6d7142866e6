"""How far a reward can be followed: the laws of over-optimisation, what best-of-n costs and gains, and the frontier.

Gao et al. 2023 (arXiv:2210.10760) found that a reward which is not trained on goes, as a function of
d = sqrt(KL(policy || base)) in nats, as

    best of n                   R(d) = d (alpha - beta d)
    reinforcement learning      R(d) = d (alpha - beta log d)

with R relative to the base's reward. Both are linear in alpha and beta, so that least squares has a closed form. The
fit takes each KL as exact and each reward's error as independent; neither is quite so along one run, and its intervals
are then too narrow. The laws describe what was seen: a peak beyond the largest KL measured is a guess.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afresh.alignment.monitoring.rows import Row, by_step, finite
from afresh.core import UserError

Kind = Literal["best_of_n", "rl"]
Array = NDArray[np.float64]
MOST_RATIO = 500.0  # of alpha to beta; a peak farther than exp(2 * 500) nats is none, and float64 ends there
NEEDED = 4  # points: two parameters, and two left to say how well they fit


@dataclass(frozen=True)
class Law:
    """A fitted law. `covariance` (alpha, alpha), (alpha, beta), (beta, beta); `degrees` = points less two.

    `r2` is 1 - residuals / spread about the mean, both weighted, NaN where the rewards are all the same; `farthest` is
    the largest KL among the points, in nats.
    """

    kind: Kind
    alpha: float
    beta: float
    covariance: tuple[float, float, float]
    r2: float
    points: int
    farthest: float

    @property
    def degrees(self) -> int:
        return self.points - 2

    @property
    def alpha_error(self) -> float:
        return math.sqrt(self.covariance[0])

    @property
    def beta_error(self) -> float:
        return math.sqrt(self.covariance[2])


@dataclass(frozen=True)
class Peak:
    """Where a law is largest: `kl` in nats and the reward there, each with its interval.

    `kl_high` is infinite where the points do not show that the reward ever turns; the reward's interval is then open
    too.
    """

    kl: float
    kl_low: float
    kl_high: float
    reward: float
    reward_low: float
    reward_high: float


def _design(kl: Array, kind: Kind) -> Array:
    """What alpha and beta multiply, (N, 2): d and -d^2, or d and -d log d (0 at d = 0)."""
    d = np.sqrt(kl)
    bend = kl if kind == "best_of_n" else d * np.log(np.where(d > 0, d, 1))
    return np.stack([d, -bend], 1)


def fit(kl: ArrayLike, reward: ArrayLike, kind: Kind = "rl", weights: ArrayLike | None = None) -> Law:
    """The law nearest to N points by weighted least squares: kl (N,) in nats, reward (N,) relative to the base's.

    weights (N,) of at least 0 are inverse variances up to a factor, which the residuals tell (all 1 unless given).
    Points with a KL of 0 or less (the base, and estimates that came out negative), or with weight 0, are left out:
    the law is 0 at 0. Raises UserError for fewer than four others, for fewer than two distances among them, for
    numbers that are not finite, and for shapes that disagree.
    """
    x, y = np.asarray(kl, np.float64), np.asarray(reward, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    if x.ndim != 1 or x.shape != y.shape or x.shape != w.shape:
        raise UserError(f"kl {x.shape}, reward {y.shape}, weights {w.shape}: all are to be of one length (N,).")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(w).all() and (w >= 0).all()):
        raise UserError("KL, rewards and weights are to be finite, and weights at least 0. Leave out the other points.")
    used = (x > 0) & (w > 0)
    x, y, w = x[used], y[used], w[used]
    if len(x) < NEEDED:
        raise UserError(
            f"A law of over-optimisation needs at least {NEEDED} points with a KL above 0; given: {len(x)} of "
            f"{len(used)}. Train longer or evaluate more often, and see that the KL is measured."
        )
    w = w / w.mean()
    design = _design(x, kind)
    size = np.sqrt((w[:, None] * design**2).sum(0))  # columns of length 1: their angle is then the condition
    if np.unique(x).size < 2 or np.linalg.cond(np.sqrt(w)[:, None] * design / np.where(size > 0, size, 1)) > 1e8:
        raise UserError(
            f"All {len(x)} points are about {x[0]:.3g} nats from the base. A law needs points at several distances."
        )
    root = np.sqrt(w)[:, None] * design / size
    q, r = np.linalg.qr(root)
    found = np.linalg.solve(r, q.T @ (np.sqrt(w) * y)) / size
    residual = float((w * (y - design @ found) ** 2).sum())
    inverse = np.linalg.inv(r)
    covariance = residual / (len(x) - 2) * (inverse @ inverse.T) / np.outer(size, size)
    about = float((w * (y - np.average(y, weights=w)) ** 2).sum())
    return Law(
        kind,
        float(found[0]),
        float(found[1]),
        (float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
        1 - residual / about if about > 0 else math.nan,
        len(x),
        float(x.max()),
    )


def predict(law: Law, kl: ArrayLike) -> Array:
    """The reward relative to the base's at each KL (N,) of at least 0, in nats. Raises UserError for one below 0."""
    x = np.asarray(kl, np.float64)
    if not (x >= 0).all():
        raise UserError("A law of over-optimisation has values at a KL of 0 or more.")
    return np.asarray(_design(x.reshape(-1), law.kind) @ np.array([law.alpha, law.beta])).reshape(x.shape)


# --------------------------------------------------------------------------- its peak


def student(degrees: int, confidence: float) -> float:
    """The two-sided quantile of Student's t. Raises UserError unless 0 < confidence < 1."""
    from scipy.special import stdtrit

    if not 0 < confidence < 1:
        raise UserError(f"A confidence of {confidence:g} is not one: it is to be between 0 and 1, as 0.95.")
    return float(stdtrit(degrees, (1 + confidence) / 2))


def interval(value: float, error: float, degrees: int, confidence: float = 0.95) -> tuple[float, float]:
    """value -+ t error: of a law's alpha or beta."""
    half = student(degrees, confidence) * error
    return value - half, value + half


def peak(law: Law, confidence: float = 0.95) -> Peak | None:
    """Where the law is largest, or None where it has no largest value above 0 within e^1000 nats.

    R' = 0 at d = alpha / (2 beta) with R = alpha^2 / (4 beta) (best of n), and at d = exp(alpha / beta - 1) with
    R = beta d (reinforcement learning). Both places depend on alpha / beta alone, whose interval is Fieller's (1954):
    all ratios that a t test does not refuse. It has no upper end where beta is not above 0 with that confidence. The
    reward's interval is by the delta method, in the logarithm.
    """
    if law.beta <= 0 or (law.kind == "best_of_n" and law.alpha <= 0) or law.alpha / law.beta > MOST_RATIO:
        return None
    t = student(law.degrees, confidence)
    low, high = _ratio(law, t)
    aa, ab, bb = law.covariance
    ratio = law.alpha / law.beta
    if law.kind == "best_of_n":
        reward, slope = law.alpha**2 / (4 * law.beta), (2 / law.alpha, -1 / law.beta)
    else:
        reward, slope = law.beta * _exp(ratio - 1), (1 / law.beta, (1 - ratio) / law.beta)
    variance = slope[0] ** 2 * aa + 2 * slope[0] * slope[1] * ab + slope[1] ** 2 * bb
    half = math.inf if math.isinf(high) else t * math.sqrt(max(0.0, variance))
    at, start, end = (_place(law.kind, r) for r in (ratio, low, high))
    return Peak(at, min(at, start), max(at, end), reward, reward * _exp(-half), reward * _exp(half))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _place(kind: Kind, ratio: float) -> float:
    """KL at the peak of a law with alpha / beta = ratio."""
    d = max(0.0, ratio) / 2 if kind == "best_of_n" else _exp(ratio - 1)
    return d * d if d < 1e150 else math.inf


def _ratio(law: Law, t: float) -> tuple[float, float]:
    """Fieller's interval of alpha / beta: the r for which (alpha - r beta)^2 <= t^2 var(alpha - r beta)."""
    aa, ab, bb = law.covariance
    a, b, c = law.beta**2 - t * t * bb, law.alpha * law.beta - t * t * ab, law.alpha**2 - t * t * aa
    root = math.sqrt(max(0.0, b * b - a * c))
    if a > 0:
        return (b - root) / a, (b + root) / a
    # Beta may be 0, and the ratio anything from some value on.
    lower = (b - root) / a if a < 0 and b * b > a * c else -math.inf
    return (lower if lower <= law.alpha / law.beta else -math.inf), math.inf


# --------------------------------------------------------------------------- best of n


def best_of_n_kl(n: int) -> float:
    """Nats between the base and the best of n samples of it: log n - (n - 1) / n.

    Exact where no two samples have the same reward (a density), otherwise an upper bound (Beirami et al. 2024,
    arXiv:2401.01879). Raises UserError unless n is 1 or more.
    """
    if n < 1:
        raise UserError(f"Best of {n}: n is the number of samples to choose among, 1 or more.")
    return math.log(n) - (n - 1) / n


def best_of_n_reward(rewards: ArrayLike, n: int, judged: ArrayLike | None = None) -> float:
    """The expected reward of the best of n samples, unbiased, from N >= n samples: the mean of the maximum over all
    subsets of n.

    rewards (N,), or (P, N) for P requests, over which the mean is taken. With the rewards r_1 <= ... <= r_N, r_i is the
    largest of C(i - 1, n - 1) of the C(N, n) subsets (for rewards of 0 and 1, pass@n: Chen et al. 2021, equation 1).
    `judged`, of the same shape, is what is averaged where `rewards` choose: the unseen reward of the best by the proxy;
    among equal rewards each is chosen as often. Raises UserError for other shapes, n outside 1 to N, and numbers that
    are not finite.
    """
    by = np.asarray(rewards, np.float64)
    of = by if judged is None else np.asarray(judged, np.float64)
    if by.ndim not in (1, 2) or by.size == 0 or by.shape != of.shape:
        raise UserError(
            f"rewards {by.shape}, judged {of.shape}: both are to be (N,) or (P, N), with one or more samples."
        )
    if not 1 <= n <= by.shape[-1]:
        raise UserError(f"Best of {n} among {by.shape[-1]} samples: n is to be from 1 to the number of samples.")
    if not (np.isfinite(by).all() and np.isfinite(of).all()):
        raise UserError("Rewards are to be finite numbers. Leave out the samples without one, in every request alike.")
    total = by.shape[-1]
    # C(i - 1, n - 1) / C(N, n) by its ratio to the next, (i - n + 1) / i, from n / N at i = N: it does not overflow.
    i = np.arange(total - 1, 0, -1)
    share = n / total * np.cumprod(np.concatenate([[1.0], np.maximum(i - n + 1, 0) / i]))[::-1]
    ends = np.concatenate([[0.0], np.cumsum(share)])
    means = []
    for row, worth in zip(np.atleast_2d(by), np.atleast_2d(of), strict=True):
        values, group, often = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(often)
        chosen = ends[last] - ends[last - often]  # how often each value is the largest
        worths = np.bincount(group.reshape(-1), worth, len(values)) / often
        means.append(float(chosen @ worths))
    return float(np.mean(means))


# --------------------------------------------------------------------------- the frontier


@dataclass(frozen=True)
class Point:
    """A step's divergence from the base in nats, its reward, and its unseen reward where there is one."""

    step: int
    kl: float
    reward: float | None
    unseen: float | None = None


def frontier(rows: Iterable[Row], of: Sequence[Literal["reward", "unseen"]] | None = None) -> list[Point]:
    """The points that no other dominates, by growing KL: none has as little KL and as much of each reward in `of`, and
    more of one or less KL.

    `of` is both rewards, where any row has an unseen one, else the reward alone. Rows that lack one of these or the KL
    have no point; an estimate of the KL below 0 counts as 0. Single batches are noisy, and the frontier takes the
    lucky ones: give it evaluations, or means. Raises UserError for rows that cannot be read.
    """
    merged = by_step(rows)
    both = any(finite(r, "unseen") is not None for r in merged)
    names = of or (("reward", "unseen") if both else ("reward",))
    found: list[tuple[tuple[float, float, float], Point]] = []
    for row in merged:
        kl, reward, unseen = (finite(row, name) for name in ("kl", "reward", "unseen"))
        goods = [finite(row, name) for name in names]
        known = [-g for g in goods if g is not None]
        if kl is not None and len(known) == len(goods):
            point = Point(row["step"], max(0.0, kl), reward, unseen)
            found.append(((point.kl, known[0], known[-1]), point))
    kept: list[Point] = []
    taken: set[tuple[float, float, float]] = set()
    # A stair over the costs kept so far: `first` grows, `second` falls. What dominates a point comes before it in this
    # order, so that looking at one step of the stair is enough.
    first: list[float] = []
    second: list[float] = []
    for costs, point in sorted(found, key=lambda f: (f[0], f[1].step)):
        _, one, other = costs
        under = bisect_right(first, one)
        if costs not in taken:
            if under and second[under - 1] <= other:
                continue
            taken.add(costs)
            start = end = bisect_left(first, one)
            while end < len(first) and second[end] >= other:
                end += 1
            first[start:end], second[start:end] = [one], [other]
        kept.append(point)
    return kept
