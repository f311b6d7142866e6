"""Scores of forecasts against closed forms, and the seasonal naive forecast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from afresh.domains.series.anomalies import scores
from afresh.domains.series.scores import LEVELS, held, quantile_losses, scaled_errors, seasonal_naive
from afresh.domains.series.tree import fit


def test_the_quantile_loss_of_a_point_forecast_is_its_absolute_error() -> None:
    """Since levels p and 1 - p have losses that sum to it."""
    truth = np.array([[1.0, -2.0, 4.0], [0.0, 3.0, np.nan]])
    point = np.array([[2.0, -2.0, 1.0], [1.0, 1.0, 9.0]])
    loss, size = quantile_losses(np.stack([point] * len(LEVELS)), truth)
    np.testing.assert_allclose(loss, [4.0, 3.0])
    np.testing.assert_allclose(size, [7.0, 3.0])


def test_the_true_quantiles_have_the_least_loss_and_its_closed_form() -> None:
    """For a standard normal variable the expected loss at level p is 2 phi(z_p)."""
    y = norm.ppf((np.arange(100_000) + 0.5) / 100_000)[None]
    z = norm.ppf(LEVELS)

    def loss(spread: float, shift: float) -> float:
        q = np.broadcast_to((spread * z + shift)[:, None, None], (len(LEVELS), 1, y.shape[1]))
        return float(quantile_losses(q, y)[0][0] / y.shape[1])

    assert loss(1, 0) == pytest.approx(2 * norm.pdf(z).mean(), rel=1e-3)
    assert loss(1, 0) < min(loss(0.7, 0), loss(1.3, 0), loss(1, 0.2))


def test_the_seasonal_naive_forecast_is_exact_for_what_repeats() -> None:
    past = np.tile([1.0, 5.0, 2.0, 7.0], 5)[None, None, :18]
    found = seasonal_naive(past, 4, 6, (0.1, 0.5, 0.9))
    np.testing.assert_allclose(found, np.broadcast_to([2.0, 7.0, 1.0, 5.0, 2.0, 7.0], (3, 1, 1, 6)))


def test_its_intervals_hold_what_they_say_for_a_seasonal_random_walk() -> None:
    draw = np.random.default_rng(0)
    walks = draw.standard_normal((400, 1, 30, 4)).cumsum(2).reshape(400, 1, 120)
    past, truth = walks[..., :100], walks[..., 100:]
    low, high = seasonal_naive(past, 4, 20, (0.05, 0.95))
    inside, count = held(low, high, truth)
    assert inside.sum() / count.sum() == pytest.approx(0.9, abs=0.02)


def test_missing_values_have_earlier_seasons_in_their_place() -> None:
    past = np.array([[1.0, 2.0, 3.0, 1.0, np.nan, 3.0]])
    assert seasonal_naive(past, 3, 3, (0.5,))[0, 0].tolist() == [1.0, 2.0, 3.0]


def test_scaled_errors_are_one_where_the_error_is_that_of_the_season() -> None:
    past = np.array([[[0.0, 0.0, 2.0, 2.0, 4.0, 4.0], [3.0] * 6]])
    found = scaled_errors(np.zeros((1, 2, 2)), np.full((1, 2, 2), 2.0), past, 2)
    assert found[0, 0] == 1.0 and np.isnan(found[0, 1])


def test_trees_learn_a_column_that_follows_the_calendar() -> None:
    draw = np.random.default_rng(0)
    phase = np.sin(2 * np.pi * (np.arange(36)[None] + draw.integers(0, 12, 300)[:, None]) / 12)
    values = phase[:, None] + 0.05 * draw.standard_normal((300, 1, 36))
    past, later, truth = values[..., :24], phase[:, None, 24:], values[..., 24:]
    middle, low, high = fit(past[:250], later[:250], truth[:250], 12, (0.5, 0.05, 0.95))(past[250:], later[250:])
    assert (low <= middle).all() and (middle <= high).all()
    assert np.abs(middle - truth[250:]).mean() < 0.1


def test_the_distance_of_a_value_is_in_deviations_and_its_chance_two_sided() -> None:
    members = norm.ppf((np.arange(2000) + 0.5) / 2000)[:, None] * 2 + 5  # N(5, 2)
    chance, distance, median = scores(np.broadcast_to(members, (2000, 4)), np.array([5.0, 9.0, -1.0, np.nan]))
    np.testing.assert_allclose(median, 5, atol=1e-2)
    np.testing.assert_allclose(distance[:3], [0, 2, 3], atol=0.02)
    np.testing.assert_allclose(chance[:3], [1, 2 * norm.sf(2), 2 * norm.sf(3)], atol=2e-3)
    assert np.isnan(chance[3]) and np.isnan(distance[3])
