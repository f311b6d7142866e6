"""Acquisition functions against numerical integration, and batches that spread."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.engine.alignment.surrogate.acquisition import Goal, batch_of, drawn

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("goal", [Goal(), Goal(False), Goal(target=0.7)], ids=str)
def test_improvements_and_chances_are_those_of_draws(goal: Goal) -> None:
    mean, sd = np.array([0.0, 1.0, 3.0]), np.array([1.0, 0.5, 2.0])
    best = float(goal.worth(np.array([0.9]))[0])
    draws = mean + sd * RNG.standard_normal((400_000, 3))
    worth = goal.worth(draws) - best
    np.testing.assert_allclose(goal.improvement(mean, sd, best), np.maximum(worth, 0).mean(0), atol=5e-3)
    np.testing.assert_allclose(goal.chance(mean, sd, best), (worth > 0).mean(0), atol=5e-3)


def groups() -> tuple[np.ndarray, np.ndarray]:
    """Ten items of one group of high means that are nearly the same, and ten independent ones."""
    covariance = np.eye(20) * 0.2
    covariance[:10, :10] = 0.2 - 1e-4 + 1e-4 * np.eye(10)
    return np.r_[np.ones(10), np.full(10, 0.9)], covariance


@pytest.mark.parametrize("how", ["ei", "ucb", "thompson"])
def test_a_batch_does_not_ask_the_same_twice(how: str) -> None:
    mean, covariance = groups()
    apart = np.eye(20)
    chosen = batch_of(how, mean, covariance, 0.0, Goal(), 1.0, 5, apart, 0)  # type: ignore[arg-type]
    assert len(set(chosen)) == 5 and sum(i < 10 for i in chosen) <= 3
    greedy = batch_of("greedy", mean, covariance, 0.0, Goal(), 1.0, 5, apart, 0)
    assert all(i < 10 for i in greedy)


@pytest.mark.parametrize("goal", [Goal(), Goal(False), Goal(target=10.0)], ids=str)
def test_what_is_believed_of_an_item_is_what_the_next_must_improve_on(goal: Goal) -> None:
    """Three independent items, against a best of 0, with E[max(0, Y - f)] = s (z Phi(z) + phi(z)), z = (m - f) / s:
    the first, N(1, 0.01^2), improves by 1, the second, N(0.9, 0.1^2), by 0.9, and the third, N(0, 1.2^2), by 0.48. Once
    the first is believed to be 1, the second improves on it by 0.008 and the third by 0.14."""
    mean, sd = np.array([1.0, 0.9, 0.0]), np.array([0.01, 0.1, 1.2])
    if not goal.maximise:
        mean = -mean  # a target of 10 is so far above that to come nearer to it is to be higher
    best = float(goal.worth(np.zeros(1))[0])
    assert batch_of("ei", mean, np.diag(sd**2), 0.0, goal, best, 3, np.eye(3), 0) == [0, 2, 1]


def test_items_too_much_alike_are_passed_over_while_there_are_others() -> None:
    mean, covariance = groups()
    alike = np.eye(20)
    alike[:10, :10] = 0.95
    chosen = batch_of("greedy", mean, covariance, 0.0, Goal(), 1.0, 12, alike, 0)
    assert [i < 10 for i in chosen] == [True] + [False] * 10 + [True]


@pytest.mark.parametrize("how", ["ei", "ucb", "thompson", "greedy"])
def test_no_item_is_chosen_twice_however_much_alike_all_are(how: str) -> None:
    mean, covariance = groups()
    chosen = batch_of(how, mean, covariance, 0.0, Goal(), 1.0, 30, np.ones((20, 20)), 0)  # type: ignore[arg-type]
    assert sorted(chosen) == list(range(20))


def test_joint_draws_have_their_covariance() -> None:
    mean, covariance = groups()
    found = drawn(mean, covariance, 40_000, 0)
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.01)
    np.testing.assert_allclose(found.mean(0), mean, atol=0.02)


def test_one_goal_is_wanted() -> None:
    assert Goal.of(None, None) == Goal(True) and Goal.of(False, None) == Goal(False)
    assert Goal.of(None, 2.0) == Goal(True, 2.0)
    with pytest.raises(UserError, match=r"`minimise` and `target=2` cannot both be wanted"):
        Goal.of(False, 2.0)
