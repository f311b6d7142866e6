"""The laws of over-optimisation, best-of-n and the frontier: planted parameters, enumeration, calculus, bad input."""

from __future__ import annotations

import math
import time
from itertools import combinations, product

import numpy as np
import pytest

from afresh.alignment.monitoring import overoptimisation as over
from afresh.alignment.monitoring.overoptimisation import (
    Kind,
    Law,
    Point,
    best_of_n_kl,
    best_of_n_reward,
    fit,
    frontier,
    peak,
    predict,
)
from afresh.core import UserError
from afresh.evaluation.programs import pass_at_k

KINDS: tuple[Kind, ...] = ("best_of_n", "rl")
KL = np.array([0.2, 0.5, 1.0, 2.0, 4.0, 9.0, 16.0])


def truth(kind: Kind, alpha: float, beta: float, kl: np.ndarray) -> np.ndarray:
    d = np.sqrt(kl)
    return d * (alpha - beta * (d if kind == "best_of_n" else np.log(d)))


# --------------------------------------------------------------------------- the fit


@pytest.mark.parametrize("kind", KINDS)
def test_planted_parameters_come_back(kind: Kind) -> None:
    law = fit(KL, truth(kind, 0.7, 0.12, KL), kind, weights=np.arange(1, 8))
    assert (law.alpha, law.beta) == (pytest.approx(0.7, abs=1e-12), pytest.approx(0.12, abs=1e-12))
    assert law.r2 == pytest.approx(1) and law.alpha_error < 1e-7 and (law.points, law.farthest) == (7, 16.0)
    np.testing.assert_allclose(predict(law, [0.0, 3.0]), [0, *truth(kind, 0.7, 0.12, np.array([3.0]))], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_least_squares_with_its_textbook_errors(kind: Kind) -> None:
    """Against the normal equations, unscaled: theta = (X'WX)^-1 X'Wy, covariance s^2 (X'WX)^-1."""
    generator = np.random.default_rng(0)
    y, w = truth(kind, 0.7, 0.1, KL) + generator.normal(0, 0.1, 7), generator.uniform(0.5, 2, 7)
    d = np.sqrt(KL)
    x = np.stack([d, -d * d if kind == "best_of_n" else -d * np.log(d)], 1)
    inverse = np.linalg.inv(x.T @ (w[:, None] * x))
    theta = inverse @ x.T @ (w * y)
    cov = (w * (y - x @ theta) ** 2).sum() / 5 * inverse
    for scale in (1.0, 1e6):  # weights count relatively
        law = fit(KL, y, kind, w * scale)
        np.testing.assert_allclose([law.alpha, law.beta], theta, rtol=1e-10)
        np.testing.assert_allclose(law.covariance, [cov[0, 0], cov[0, 1], cov[1, 1]], rtol=1e-9)
        assert law.r2 == pytest.approx(
            1 - (w * (y - x @ theta) ** 2).sum() / (w * (y - np.average(y, weights=w)) ** 2).sum()
        )


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_the_truth_as_often_as_they_say(kind: Kind) -> None:
    """95% of 400 fits: within 3 standard errors of that share (1.1% each). The peak's reward is approximate."""
    generator = np.random.default_rng(1)
    kl = np.linspace(0.3, 30, 12)
    alpha, beta = (0.8, 0.12) if kind == "best_of_n" else (0.8, 0.5)
    at = alpha / (2 * beta) if kind == "best_of_n" else math.exp(alpha / beta - 1)
    most = at * (alpha - beta * (at if kind == "best_of_n" else math.log(at)))
    held = np.zeros(4)
    for _ in range(400):
        law = fit(kl, truth(kind, alpha, beta, kl) + generator.normal(0, 0.1, 12), kind)
        top = peak(law)
        assert top is not None
        low, high = over.interval(law.alpha, law.alpha_error, law.degrees)
        held[0] += low <= alpha <= high
        low, high = over.interval(law.beta, law.beta_error, law.degrees)
        held[1] += low <= beta <= high
        held[2] += top.kl_low <= at**2 <= top.kl_high
        held[3] += top.reward_low <= most <= top.reward_high
    shares = held / 400
    assert (np.abs(shares[:3] - 0.95) < 0.033).all() and abs(shares[3] - 0.95) < 0.045, shares


def test_points_without_a_distance_do_not_count() -> None:
    y = truth("rl", 0.7, 0.12, KL)
    law = fit([0.0, -0.3, *KL, 5.0], [9.0, 9.0, *y, 99.0], "rl", [1.0] * 9 + [0.0])
    assert law.points == 7 and law.alpha == pytest.approx(0.7)


@pytest.mark.parametrize(
    "kl, reward, weights, said",
    [
        ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], None, "at least 4 points.*given: 3 of 3"),
        ([0.0, -1.0, 0.0, 0.0, 0.0], [1.0] * 5, None, "given: 0 of 5"),
        ([2.0] * 6, [1.0] * 6, None, "several distances"),
        ([1.0, 2.0, 3.0, math.nan], [1.0] * 4, None, "finite"),
        ([1.0, 2.0, 3.0, 4.0], [1.0] * 4, [1.0, 1.0, 1.0, -1.0], "at least 0"),
        ([1.0, 2.0, 3.0, 4.0], [1.0] * 3, None, "one length"),
    ],
)
def test_what_no_law_can_be_made_of_is_refused(
    kl: list[float], reward: list[float], weights: object, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        fit(kl, reward, "rl", weights)  # type: ignore[arg-type]


def test_rewards_that_are_all_the_same_explain_nothing() -> None:
    assert math.isnan(fit(KL, np.zeros(7)).r2)


def test_no_value_below_a_distance_of_0() -> None:
    with pytest.raises(UserError, match="0 or more"):
        predict(fit(KL, truth("rl", 0.7, 0.1, KL)), [-1.0])


# --------------------------------------------------------------------------- the peak


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha, beta", [(0.8, 0.2), (0.3, 0.9), (1.5, 0.4)])
def test_the_peak_is_where_the_law_is_level(kind: Kind, alpha: float, beta: float) -> None:
    law = Law(kind, alpha, beta, (0.0, 0.0, 0.0), 1.0, 9, 10.0)
    top = peak(law)
    assert top is not None and float(predict(law, top.kl)) == pytest.approx(top.reward)
    near, step = top.kl * np.array([0.99, 1.01]), 1e-5 * top.kl
    assert (predict(law, near) < top.reward).all()
    slope = float(np.diff(predict(law, [top.kl - step, top.kl + step]))[0]) / (2 * step)
    assert abs(slope) < 1e-6 * top.reward / top.kl
    assert (top.kl_low, top.kl_high) == (pytest.approx(top.kl), pytest.approx(top.kl))
    assert (top.reward_low, top.reward_high) == (pytest.approx(top.reward), pytest.approx(top.reward))


@pytest.mark.parametrize("kind", KINDS)
def test_a_law_that_only_rises_has_no_peak(kind: Kind) -> None:
    assert peak(Law(kind, 0.5, -0.1, (0.0, 0.0, 0.0), 1.0, 9, 10.0)) is None
    assert peak(Law(kind, 0.5, 0.0, (0.0, 0.0, 0.0), 1.0, 9, 10.0)) is None
    assert peak(Law("rl", 0.5, 1e-5, (0.0, 0.0, 0.0), 1.0, 9, 10.0)) is None  # beyond what a float64 holds


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_that_is_not_shown_has_no_upper_end(kind: Kind) -> None:
    """beta = 0.1 with an error of 0.2: the ratio has a lower end at most. 0.8 -+ 0.01 over at most 0.1 + 2.36 x 0.2."""
    top = peak(Law(kind, 0.8, 0.1, (0.0001, 0.0, 0.04), 1.0, 9, 10.0))
    assert top is not None and math.isinf(top.kl_high) and math.isinf(top.reward_high) and top.reward_low == 0
    ratio = 0.8 / (0.1 + over.student(7, 0.95) * 0.2)
    low = (ratio / 2) ** 2 if kind == "best_of_n" else math.exp(2 * (ratio - 1))
    assert low == pytest.approx(top.kl_low, rel=0.1) and top.kl_low < top.kl


# --------------------------------------------------------------------------- best of n


def test_the_cost_of_best_of_n() -> None:
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 3 / 4)
    with pytest.raises(UserError, match="1 or more"):
        best_of_n_kl(0)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_it_is_a_bound_that_many_distinct_rewards_reach(n: int) -> None:
    """The best of n of K equally likely samples is the k-th with (k^n - (k-1)^n) / K^n: its exact KL, by the sum."""

    def exact(outcomes: int) -> float:
        k = np.arange(1.0, outcomes + 1)
        p = (k**n - (k - 1) ** n) / float(outcomes) ** n
        return float((p * np.log(p * outcomes)).sum())

    gaps = [best_of_n_kl(n) - exact(k) for k in (2, 10, 100, 3000)]
    assert all(g > 0 for g in gaps) and gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-3 * best_of_n_kl(n) + 1e-3


REWARDS = [0.3, -1.0, 2.5, 0.3, 0.9, 2.5, -0.2]
JUDGED = [5.0, 1.0, -2.0, 7.0, 0.5, 4.0, 3.0]


@pytest.mark.parametrize("n", range(1, 8))
def test_the_best_of_n_is_the_mean_over_all_subsets(n: int) -> None:
    subsets = list(combinations(range(7), n))
    assert best_of_n_reward(REWARDS, n) == pytest.approx(np.mean([max(REWARDS[i] for i in s) for s in subsets]))

    def of_the_best(subset: tuple[int, ...]) -> float:
        top = max(REWARDS[i] for i in subset)
        return float(np.mean([JUDGED[i] for i in subset if REWARDS[i] == top]))

    assert best_of_n_reward(REWARDS, n, JUDGED) == pytest.approx(np.mean([of_the_best(s) for s in subsets]))


def test_it_is_unbiased() -> None:
    """Over all 3^5 equally likely draws of five samples, the mean is the exact expected maximum of three."""
    values = (0.0, 1.0, 4.0)
    found = np.mean([best_of_n_reward(draw, 3) for draw in product(values, repeat=5)])
    assert found == pytest.approx(np.mean([max(draw) for draw in product(values, repeat=3)]))


@pytest.mark.parametrize("right", [0, 3, 17, 40])
def test_with_rewards_of_0_and_1_it_is_pass_at_n(right: int) -> None:
    rewards = [1.0] * right + [0.0] * (40 - right)
    assert best_of_n_reward(rewards, 5) == pytest.approx(pass_at_k(40, right, 5))


def test_requests_count_alike_and_many_samples_do_not_overflow() -> None:
    both = best_of_n_reward([REWARDS, JUDGED], 3)
    assert both == pytest.approx((best_of_n_reward(REWARDS, 3) + best_of_n_reward(JUDGED, 3)) / 2)
    n, many = 500, np.arange(20_000.0)
    assert best_of_n_reward(many, n) == pytest.approx(n * 20_001 / (n + 1) - 1)  # of 0 .. N - 1 without replacement


@pytest.mark.parametrize(
    "rewards, n, judged, said",
    [
        ([1.0, 2.0], 3, None, "from 1 to"),
        ([1.0, 2.0], 0, None, "from 1 to"),
        ([], 1, None, "one or more samples"),
        ([1.0, math.nan], 1, None, "finite"),
        ([1.0, 2.0], 1, [1.0], "judged"),
    ],
)
def test_what_has_no_best_of_n_is_refused(rewards: list[float], n: int, judged: list[float] | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        best_of_n_reward(rewards, n, judged)


# --------------------------------------------------------------------------- the frontier


def test_the_frontier_is_what_no_other_dominates() -> None:
    """Against the definition, over random points with many ties."""
    generator = np.random.default_rng(2)
    rows = [
        {"step": i, "kl": float(k), "reward": float(r), "unseen": float(u)}
        for i, (k, r, u) in enumerate(generator.integers(0, 12, (60, 3)))
    ]

    def dominated(p: dict[str, float]) -> bool:
        better = [(q["kl"] <= p["kl"], q["reward"] >= p["reward"], q["unseen"] >= p["unseen"], q) for q in rows]
        return any(a and b and c and any(q[k] != p[k] for k in ("kl", "reward", "unseen")) for a, b, c, q in better)

    found = frontier(rows)
    assert {p.step for p in found} == {r["step"] for r in rows if not dominated(r)}
    assert 2 < len(found) < 30 and [p.kl for p in found] == sorted(p.kl for p in found)


def test_a_long_run_has_its_frontier_at_once() -> None:
    """Nothing dominates anything here: comparing all with all would take minutes."""
    rows = [{"step": i, "kl": 0.001 * i, "reward": float(i)} for i in range(20_000)]
    begun = time.perf_counter()
    assert len(frontier(rows)) == 20_000 and time.perf_counter() - begun < 20


def test_which_rewards_count_and_which_rows() -> None:
    rows = [
        {"step": 0, "kl": -0.01, "reward": 0.0, "unseen": 0.0},
        {"step": 1, "kl": 1.0, "reward": 1.0, "unseen": 1.0},
        {"step": 2, "kl": 0.5, "reward": 3.0},
        {"step": 3, "kl": 2.0, "reward": 2.0, "unseen": 0.5},
        {"step": 4, "kl": math.nan, "reward": 9.0, "unseen": 9.0},
    ]
    assert [p.step for p in frontier(rows)] == [0, 1, 3]
    assert frontier(rows, ("unseen",)) == [Point(0, 0.0, 0.0, 0.0), Point(1, 1.0, 1.0, 1.0)]
    assert [p.step for p in frontier(rows, ("reward",))] == [0, 2]
    assert frontier([]) == []
    with pytest.raises(UserError, match="is to be a number"):
        frontier([{"step": 0, "kl": "far", "reward": 1.0}])
