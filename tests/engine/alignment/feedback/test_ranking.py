"""Strengths from votes, the worth of a question, and the trust in a prediction: closed forms, quadrature, plants."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit, logit, xlogy

from afresh.core import UserError
from afresh.engine.alignment.feedback.preferences import Candidate, Pair, Vote
from afresh.engine.alignment.feedback.ranking import (
    Duels,
    Strengths,
    ask,
    calibration,
    derivatives,
    duels_of,
    fit,
    information,
    log_posterior,
)

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(100)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def named(k: int) -> tuple[Candidate, ...]:
    return tuple(Candidate(f"{i:03d}") for i in range(k))


def planted(true: np.ndarray, n: int, g: np.random.Generator, ties: float = 0.0) -> Duels:
    """n votes on random pairs by strengths (K,)."""
    k = len(true)
    i = g.integers(0, k, n)
    j = (i + g.integers(1, k, n)) % k
    score = (g.random(n) < expit(true[i] - true[j])).astype(float)
    return Duels(named(k), i, j, np.where(g.random(n) < ties, 0.5, score))


def wins(won: float, lost: float, spread: float = 1.0) -> Strengths:
    """Two candidates, the first of which won and lost so often."""
    n = int(won + lost)
    score = np.array([1.0] * int(won) + [0.0] * int(lost))
    return fit(Duels(named(2), np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64), score), spread)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(xlogy(p, p) + xlogy(1 - p, 1 - p)) / np.log(2)


# --------------------------------------------------------------------------- strengths


def test_two_candidates_in_closed_form() -> None:
    """With next to no prior, the odds are those of the counts; the variance is that of a logit, 1/won + 1/lost."""
    found = wins(30, 10, spread=1e4)
    assert found.mean[0] - found.mean[1] == pytest.approx(np.log(3), abs=1e-5)
    c = found.covariance
    assert c[0, 0] + c[1, 1] - 2 * c[0, 1] == pytest.approx(1 / 30 + 1 / 10, rel=1e-4)


def test_the_prior_and_the_votes_add_up() -> None:
    """The difference has variance 2 spread^2 before, and 1 / (1 / (2 spread^2) + n p (1 - p)) after n votes."""
    found = wins(6, 2, spread=0.7)
    d, c = found.mean[0] - found.mean[1], found.covariance
    p = expit(d)
    assert 6 - 8 * p == pytest.approx(d / (2 * 0.7**2), abs=1e-9)
    assert c[0, 0] + c[1, 1] - 2 * c[0, 1] == pytest.approx(1 / (1 / (2 * 0.7**2) + 8 * p * (1 - p)), abs=1e-9)
    assert found.mean.sum() == pytest.approx(0, abs=1e-9)  # the prior holds the middle of the scale


def test_nobody_voted() -> None:
    found = fit(duels_of([], named(3)), spread=2.0)
    assert found.mean.tolist() == [0, 0, 0]
    np.testing.assert_allclose(found.covariance, 4 * np.eye(3))


@pytest.mark.parametrize("spread", [0.3, 1.0, 30.0])
def test_the_gradient_is_zero_at_the_answer(spread: float) -> None:
    duels = planted(np.random.default_rng(0).normal(0, 2, 12), 300, np.random.default_rng(1), ties=0.2)
    found = fit(duels, spread)
    gradient, curvature = derivatives(duels, found.mean, spread)
    assert np.abs(gradient).max() < 1e-9
    np.testing.assert_allclose(found.covariance @ curvature, np.eye(12), atol=1e-8)


def test_derivatives_by_differences() -> None:
    g = np.random.default_rng(2)
    duels, s, h = planted(g.normal(0, 1, 5), 40, g, ties=0.3), g.normal(0, 1, 5), 1e-5
    gradient, curvature = derivatives(duels, s, 0.8)
    for k in range(5):
        e = h * np.eye(5)[k]
        slope = (log_posterior(duels, s + e, 0.8) - log_posterior(duels, s - e, 0.8)) / (2 * h)
        assert gradient[k] == pytest.approx(slope, abs=1e-6)
        bend = (derivatives(duels, s + e, 0.8)[0] - derivatives(duels, s - e, 0.8)[0]) / (2 * h)
        np.testing.assert_allclose(-curvature[k], bend, atol=1e-6)


def test_one_sided_votes_and_a_wide_prior_still_converge() -> None:
    found = wins(500, 0, spread=100.0)
    assert 500 * (1 - expit(found.mean[0] - found.mean[1])) == pytest.approx(found.mean[0] / 100**2, abs=1e-9)


def test_two_ties_are_a_win_each() -> None:
    i, j = np.array([0, 0, 1]), np.array([1, 1, 2])
    tied = fit(Duels(named(3), i, j, np.array([0.5, 0.5, 1.0])))
    split = fit(Duels(named(3), i, j, np.array([1.0, 0.0, 1.0])))
    np.testing.assert_allclose(tied.mean, split.mean, atol=1e-9)
    np.testing.assert_allclose(tied.covariance, split.covariance, atol=1e-9)


def test_planted_strengths_come_back_as_votes_grow() -> None:
    """The error falls with the root of the votes: by 4 from 500 to 8,000, on average over plants."""
    g, errors = np.random.default_rng(3), []
    plants = [g.normal(0, 1, 10) for _ in range(10)]
    for n in (500, 2000, 8000):
        gaps = []
        for true in plants:
            mean = fit(planted(true, n, g)).mean
            gaps.append(np.square(mean - mean.mean() - true + true.mean()).mean())
        errors.append(float(np.sqrt(np.mean(gaps))))
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] / errors[2] == pytest.approx(4, rel=0.3)
    assert errors[2] < 0.08


def test_intervals_hold_what_they_promise() -> None:
    """Strengths drawn from the prior lie within two deviations as often as they should, with few votes or many."""
    g = np.random.default_rng(4)
    for n in (10, 100):
        inside = []
        for _ in range(150):
            true = g.normal(0, 1, 6)
            found = fit(planted(true, n, g))
            inside.append(np.abs(found.mean - true) < 1.96 * np.sqrt(np.diag(found.covariance)))
        assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_the_order_and_what_votes_are_made_of() -> None:
    votes = [Vote("x", "y", "a"), Vote("z", "x", "b"), Vote("y", "z", "tie"), Vote("x", "y", "a", prompt="p")]
    duels = duels_of(votes, [Candidate("w"), Candidate("x")])
    assert duels.names == (
        Candidate("x"), Candidate("y"), Candidate("z"), Candidate("x", "p"), Candidate("y", "p"), Candidate("w")
    )  # fmt: skip
    assert (duels.first.tolist(), duels.second.tolist()) == ([0, 2, 1, 3], [1, 0, 2, 4])
    assert duels.score.tolist() == [1, 0, 0.5, 1]
    order = fit(duels).order()
    assert order[0][0] == Candidate("x") and [o[1] for o in order] == sorted((o[1] for o in order), reverse=True)


@pytest.mark.parametrize("spread", [0.0, -1.0, float("nan"), float("inf")])
def test_a_spread_is_above_nought(spread: float) -> None:
    with pytest.raises(UserError, match="above 0"):
        wins(1, 1, spread)


def test_too_many_candidates_or_none_are_refused() -> None:
    for k in (0, 5001):
        with pytest.raises(UserError, match=f"not {k:,}"):
            fit(duels_of([], named(k)))


# --------------------------------------------------------------------------- questions


def test_information_against_quadrature() -> None:
    """Of the sigmoid itself; the deviations are those that strengths with a spread of 1 have, and twice that."""
    for deviation, within in ((0.2, 0.004), (0.7, 0.01), (1.4, 0.02), (2.8, 0.04)):
        mean = np.linspace(-6, 6, 25)
        p = expit(mean[:, None] + deviation * NODES)
        exact = entropy(p @ WEIGHTS) - entropy(p) @ WEIGHTS
        np.testing.assert_allclose(information(mean, np.full(25, deviation**2)), exact, atol=within)


def test_information_by_its_limits() -> None:
    mean = np.linspace(-6, 6, 25)
    known = information(mean, np.zeros(25))
    assert (known >= 0).all() and known.max() < 0.003  # what is known has no answer that tells
    assert information(np.zeros(1), np.array([1e9]))[0] == pytest.approx(1, abs=1e-3)  # a coin that is quite unknown
    assert (np.diff(information(np.zeros(20), np.linspace(0, 10, 20))) > 0).all()
    np.testing.assert_allclose(information(mean, np.ones(25)), information(-mean, np.ones(25)), atol=1e-12)


def test_questions_spread_over_the_candidates() -> None:
    """After a pair has been chosen, one that shares nothing with it tells more than one that does."""
    first, second = ask(fit(duels_of([], named(4))), 2)
    assert not {first.pair.first, first.pair.second} & {second.pair.first, second.pair.second}
    assert first.gain == pytest.approx(second.gain)


def test_the_gain_of_later_questions_counts_the_answers_to_come() -> None:
    found = fit(duels_of([], named(2)))
    pair = Pair.of(*[c.item for c in named(2)])
    (question,) = ask(found, 5)
    assert question.pair == pair
    assert question.gain == pytest.approx(float(information(np.zeros(1), np.array([2.0]))[0]))
    triple = ask(fit(duels_of([], named(3))), 3)
    assert triple[0].gain > triple[1].gain > triple[2].gain  # the third follows from two in part


def test_no_pair_is_asked_again() -> None:
    found = fit(planted(np.zeros(5), 30, np.random.default_rng(5)))
    every = {Pair.of(a.item, b.item) for a, b in combinations(named(5), 2)}
    asked: set[Pair] = set()
    for _ in range(4):
        new = ask(found, 3, asked)
        assert not asked & {q.pair for q in new}
        asked |= {q.pair for q in new}
        assert len(asked) == len(every) or len(new) == 3
    assert asked == every and ask(found, 3, asked) == []
    assert len(ask(found, 99)) == 10 and ask(found, 0) == []


def test_only_candidates_for_the_same_prompt_are_compared() -> None:
    names = [Candidate("x", "p"), Candidate("y", "p"), Candidate("x", "q"), Candidate("z", "q"), Candidate("x")]
    pairs = {q.pair for q in ask(fit(duels_of([], names)), 9)}
    assert pairs == {Pair.of("x", "y", "p"), Pair.of("x", "z", "q")}


def test_close_and_unknown_pairs_come_first() -> None:
    mean = np.array([0.0, 0.1, 5.0, 5.1])
    near = ask(Strengths(named(4), mean, 0.3 * np.eye(4), 0), 2)
    assert [q.pair for q in near] == [Pair.of("000", "001"), Pair.of("002", "003")]
    unknown = ask(Strengths(named(4), np.zeros(4), np.diag([0.01, 0.01, 1.0, 1.0]), 0), 1)
    assert unknown[0].pair == Pair.of("002", "003")


def error_after(true: np.ndarray, votes_wanted: int, chosen: bool, g: np.random.Generator) -> float:
    """Mean square error of strengths (K,) after so many votes, six at a time, on chosen pairs or on random ones."""
    names = named(len(true))
    place = {c.item: i for i, c in enumerate(names)}
    pairs = [Pair.of(a.item, b.item) for a, b in combinations(names, 2)]
    order, votes = [pairs[i] for i in g.permutation(len(pairs))], list[Vote]()
    while True:
        now = fit(duels_of(votes, names), spread=2.0)
        if len(votes) >= votes_wanted:
            break
        new = [q.pair for q in ask(now, 6, {v.pair for v in votes})] if chosen else order[len(votes) :][:6]
        for p in new:
            won = g.random() < expit(true[place[p.first]] - true[place[p.second]])
            votes.append(Vote(p.first, p.second, "a" if won else "b"))
    mean = np.array([now.mean[now.names.index(c)] for c in names])
    return float(np.square(mean - mean.mean() - true + true.mean()).mean())


def test_choosing_questions_beats_random_pairs() -> None:
    """As many votes on pairs that were chosen tell more of 16 strengths than on random ones: 60 plants, each way."""
    g = np.random.default_rng(6)
    plants = [g.normal(0, 2, 16) for _ in range(60)]
    better = np.array([error_after(p, 48, False, g) - error_after(p, 48, True, g) for p in plants])
    assert better.mean() > 2 * better.std() / np.sqrt(len(better))


# --------------------------------------------------------------------------- held-out votes


def test_a_perfect_predictor_is_calibrated() -> None:
    g = np.random.default_rng(8)
    p = g.random(20_000)
    found = calibration(p, (g.random(20_000) < p).astype(float))
    assert found.error.floor is not None and found.error.value < 2 * found.error.floor < 0.02
    assert found.accuracy.value == pytest.approx(0.75, abs=0.01)
    assert all(b.predicted == pytest.approx(b.observed, abs=0.03) for b in found.table)
    assert sum(b.n for b in found.table) == 20_000


def test_one_who_is_too_sure_is_not() -> None:
    g = np.random.default_rng(9)
    p = g.random(20_000)
    sure = expit(3 * logit(p))
    found = calibration(sure, (g.random(20_000) < p).astype(float))
    gap = float(np.abs(np.maximum(sure, 1 - sure) - np.maximum(p, 1 - p)).mean())
    assert found.error.value == pytest.approx(gap, abs=0.01)
    assert found.error.floor is not None and found.error.value > 5 * found.error.floor


def test_calibration_by_hand() -> None:
    """Confidences .6 (right), .7 (wrong), .9 (right), .9 (right), .5 (half) and a tie that does not count."""
    predicted = np.array([0.6, 0.3, 0.9, 0.1, 0.5, 0.8])
    found = calibration(predicted, np.array([1, 1, 1, 0, 1, 0.5]), bins=2)
    assert found.accuracy.value == pytest.approx(3.5 / 5)
    low, high = found.table
    assert (low.low, low.high, low.n, high.low, high.high, high.n) == (0.5, 0.75, 3, 0.75, 1, 2)
    assert (low.predicted, low.observed) == pytest.approx((0.6, 2 / 3))
    assert (high.predicted, high.observed) == pytest.approx((0.9, 1))
    assert found.error.value == pytest.approx((3 * (2 / 3 - 0.6) + 2 * 0.1) / 5)


def test_which_side_is_first_does_not_matter_to_calibration() -> None:
    g = np.random.default_rng(10)
    p, y, turn = g.random(200), (g.random(200) < 0.5).astype(float), g.random(200) < 0.5
    one = calibration(p, y)
    other = calibration(np.where(turn, 1 - p, p), np.where(turn, 1 - y, y))
    assert one.accuracy.value == pytest.approx(other.accuracy.value)
    assert one.error.value == pytest.approx(other.error.value)


def test_accuracy_has_wilsons_interval() -> None:
    """10 of 10: from 1 / (1 + 1.96^2 / 10) to 1."""
    found = calibration(np.full(10, 0.9), np.ones(10)).accuracy
    assert (found.value, found.low, found.high) == pytest.approx((1, 1 / (1 + 1.959964**2 / 10), 1))


def test_bad_predictions_are_refused() -> None:
    for p in (1.1, -0.1, float("nan")):
        with pytest.raises(UserError, match="probabilities from 0 to 1"):
            calibration(np.array([p]), np.ones(1))
    with pytest.raises(UserError, match="has a winner"):
        calibration(np.array([0.7]), np.array([0.5]))
