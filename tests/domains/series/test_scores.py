"""Scores of forecasts against closed forms, and the seasonal naive forecast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from afresh.domains.series import ridge
from afresh.domains.series.anomalies import scores
from afresh.domains.series.scores import (
    LEVELS,
    held,
    quantile_losses,
    scaled_errors,
    seasonal_naive,
    seasonal_quantiles,
)
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


def test_the_quantiles_of_the_last_four_seasons_have_the_loss_that_a_hand_gives_them() -> None:
    """Of 1, 2, 3 and 4 the quantile p is 1 + 3 p. For a value of 5 the loss at p is 2 p (4 - 3 p), whose
    mean over .1 to .9 is 2 (4 x .5 - 3 x 2.85 / 9) = 2.1."""
    past = np.array([[[9.0, 1.0, 9.0, 2.0, 9.0, 3.0, 9.0, 4.0]]])
    found = seasonal_quantiles(past, 2, 2, LEVELS)
    np.testing.assert_allclose(found[:, 0, 0, 0], 9.0)
    np.testing.assert_allclose(found[:, 0, 0, 1], 1 + 3 * np.array(LEVELS))
    loss, size = quantile_losses(found, np.array([[[9.0, 5.0]]]))
    assert (loss[0], size[0]) == (pytest.approx(2.1), 14.0)
    gap = np.array([[[9.0, 1.0, 9.0, np.nan, 9.0, 3.0, 9.0, np.nan]]])
    np.testing.assert_allclose(seasonal_quantiles(gap, 2, 2, (0.5,))[0, 0, 0], [9.0, 2.0])
    np.testing.assert_allclose(seasonal_quantiles(past, 2, 5, (0.5,), seasons=1)[0, 0, 0], [9, 4, 9, 4, 9])


def test_simple_forecasts_of_what_repeats_have_no_error() -> None:
    pattern = np.array([1.0, 5.0, 2.0, 7.0, 3.0])
    windows = np.stack([np.tile(np.roll(pattern, -k), 12)[:50] for k in range(60)])[:, None]
    past, truth = windows[..., :40], windows[..., 40:]
    for name, found in (
        ("last", seasonal_naive(past, 5, 10, LEVELS)),
        ("quantiles", seasonal_quantiles(past, 5, 10, LEVELS)),
        ("ridge", ridge.fit(past, truth, 5, LEVELS)(past)),
    ):
        np.testing.assert_allclose(found, np.broadcast_to(truth, found.shape), atol=1e-4, err_msg=name)


def test_the_regression_finds_a_linear_recursion() -> None:
    """y(t) = .9 y(t-1) - .5 y(t-2), whose next values are linear in the last two."""
    draw = np.random.default_rng(0)
    y = np.zeros((300, 40))
    y[:, :2] = draw.standard_normal((300, 2))
    for k in range(2, 40):
        y[:, k] = 0.9 * y[:, k - 1] - 0.5 * y[:, k - 2] + (0.3 * draw.standard_normal(300) if k < 30 else 0.0)
    past, truth = y[:, None, :30], y[:, None, 30:]
    found = ridge.fit(past[:200], truth[:200], 4, (0.5,))(past[200:])[0]
    np.testing.assert_allclose(found, truth[200:], atol=2e-3)


def test_the_errors_of_the_regression_are_its_intervals() -> None:
    noise = np.random.default_rng(0).standard_normal((3000, 1, 24))
    low, high = ridge.fit(noise[:2000, :, :20], noise[:2000, :, 20:], 4, (0.05, 0.95))(noise[2000:, :, :20])
    inside, count = held(low, high, noise[2000:, :, 20:])
    assert inside.sum() / count.sum() == pytest.approx(0.9, abs=0.03)


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


def test_the_distance_is_in_deviations_of_the_side_on_which_the_value_lies() -> None:
    """Members that reach from 4 below to 1 above: one deviation of a normal forecast is 2 below and .5 above."""
    z = norm.ppf((np.arange(2000) + 0.5) / 2000)[:, None]
    skewed = np.broadcast_to(np.where(z < 0, 2 * z, 0.5 * z), (2000, 2))
    _, distance, _ = scores(skewed, np.array([1.0, -1.0]))
    np.testing.assert_allclose(distance, [2, 0.5], atol=0.02)
