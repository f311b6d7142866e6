"""Forecasts of statsforecast's models where the best ones are known, and what is not forecast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from afresh.domains.series.classical import MODELS, filled, forecasts
from afresh.domains.series.scores import seasonal_naive
from afresh.engine.evaluation.study import Unmeasurable
from tests import needs

LEVELS = (0.1, 0.5, 0.9, 0.25, 0.75, 0.05)  # in no order
SEASONS = 10 + np.sin(2 * np.pi * np.arange(180) / 12) * 3 + 0.5 * np.random.default_rng(0).standard_normal(180)


@pytest.fixture(autouse=True)
def statsforecast() -> None:
    needs.package("statsforecast", "'afresh[series]'", "2.1")


def test_arima_finds_the_quantiles_of_an_autoregression() -> None:
    """After h steps of y' = a y + e they are a^h y + z_p sqrt((1 - a^2h) / (1 - a^2))."""
    a, y = 0.5, np.zeros(1000)
    for step, noise in enumerate(np.random.default_rng(1).standard_normal(999)):
        y[step + 1] = a * y[step] + noise
    found, failed = forecasts(MODELS["arima"], y[None, None], 1, 8, LEVELS)
    ahead = np.arange(1, 9)
    spread = np.sqrt((1 - a ** (2 * ahead)) / (1 - a**2))
    exact = a**ahead * y[-1] + norm.ppf(LEVELS)[:, None] * spread
    assert failed == 0
    assert (np.abs(found[:, 0, 0] - exact) < 0.2 * spread).all()


@pytest.mark.parametrize("name", ["ets", "theta"])
def test_the_forecast_of_a_random_walk_is_its_last_value_and_spreads_with_the_root_of_time(name: str) -> None:
    y = np.random.default_rng(2).standard_normal(400).cumsum()
    found, failed = forecasts(MODELS[name], y[None, None], 1, 9, LEVELS)
    spread = np.sqrt(np.arange(1, 10))
    exact = y[-1] + norm.ppf(LEVELS)[:, None] * spread
    assert failed == 0
    assert (np.abs(found[:, 0, 0] - exact) < 0.35 * spread).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_season_in_noise_is_found_with_the_width_of_the_noise(name: str) -> None:
    past = np.stack([SEASONS[:120], -SEASONS[:120]])[None]
    found, _ = forecasts(MODELS[name], past, 12, 24, LEVELS)
    median, low, high = (found[LEVELS.index(p), 0] for p in (0.5, 0.1, 0.9))
    truth = 10 + np.sin(2 * np.pi * np.arange(120, 144) / 12) * 3
    assert np.abs(median - np.stack([truth, -truth])).mean() < 0.25
    assert (high - low).mean() == pytest.approx(2 * norm.ppf(0.9) * 0.5, rel=0.25)
    naive = seasonal_naive(past, 12, 24, LEVELS)[:, 0]
    assert (high - low).mean() < (naive[LEVELS.index(0.9)] - naive[LEVELS.index(0.1)]).mean()


def test_what_cannot_be_fitted_repeats_the_last_period() -> None:
    past = np.array([[[1.0, 2.0, 4.0]], [[np.nan, np.nan, np.nan]]])
    found, failed = forecasts(MODELS["theta"], past[:1], 2, 4, LEVELS)
    assert failed == 1
    np.testing.assert_array_equal(found, seasonal_naive(past[:1], 2, 4, LEVELS))
    assert np.isfinite(forecasts(MODELS["ets"], past[1:].repeat(20, 2), 2, 4, LEVELS)[0]).all()


def test_a_missing_value_counts_as_that_of_a_period_before() -> None:
    past = SEASONS[None, None, :120].copy()
    gap = past.copy()
    gap[..., 50] = np.nan
    past[..., 50] = past[..., 38]
    np.testing.assert_array_equal(filled(gap, 12), past)
    np.testing.assert_array_equal(filled(np.array([np.nan, 1.0, np.nan, 3.0, np.nan]), 2), [2.0, 1.0, 2.0, 3.0, 2.0])
    np.testing.assert_array_equal(
        forecasts(MODELS["theta"], gap, 12, 12, LEVELS)[0], forecasts(MODELS["theta"], past, 12, 12, LEVELS)[0]
    )


def test_what_would_take_too_long_or_has_too_long_a_season_is_left_out() -> None:
    with pytest.raises(Unmeasurable, match="1 forecast would take 0 seconds, and -1 are given"):
        forecasts(MODELS["theta"], SEASONS[None, None], 12, 12, LEVELS, seconds=-1)
    with pytest.raises(Unmeasurable, match="at most 24 steps, and the period is 30"):
        forecasts(MODELS["ets"], SEASONS[None, None], 30, 12, LEVELS)
