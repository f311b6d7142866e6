"""Scores against their definitions, closed forms and, where it is installed, scoringrules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afresh.core import UserError
from afresh.domains.field.scores import (
    absolute_error,
    correlation,
    correlation_times,
    crps,
    over_trajectories,
    relative_l2,
    vrmse,
)
from tests.needs import package

RNG = np.random.default_rng(7)
TRUTH = RNG.normal(size=(3, 4, 2, 6, 5)) + 2
ENSEMBLE = RNG.normal(size=(5, 3, 4, 2, 6, 5)) + 2


# --------------------------------------------------------------------------- one prediction


def test_the_mean_of_the_truth_has_a_vrmse_of_one() -> None:
    mean = np.broadcast_to(TRUTH.mean((3, 4), keepdims=True), TRUTH.shape)
    np.testing.assert_allclose(vrmse(mean, TRUTH), 1)
    assert (vrmse(TRUTH, TRUTH) == 0).all()


def test_vrmse_does_not_depend_on_units_and_takes_each_channel_by_itself() -> None:
    scale, shift = np.array([1e-9, 1e6])[:, None, None], np.array([0.0, 300.0])[:, None, None]
    np.testing.assert_allclose(vrmse(ENSEMBLE[0] * scale + shift, TRUTH * scale + shift), vrmse(ENSEMBLE[0], TRUTH))


def test_vrmse_is_that_of_the_wells_code_but_for_its_n_minus_1() -> None:
    error = ((ENSEMBLE[0] - TRUTH) ** 2).mean((3, 4))
    well = np.sqrt(error / (TRUTH.std((3, 4), ddof=1) ** 2 + 1e-7))
    np.testing.assert_allclose(vrmse(ENSEMBLE[0], TRUTH) / well, math.sqrt(30 / 29), rtol=1e-6)


def test_scores_of_a_prediction_that_is_twice_the_truth() -> None:
    np.testing.assert_allclose(relative_l2(2 * TRUTH, TRUTH), 1)
    np.testing.assert_allclose(absolute_error(2 * TRUTH, TRUTH), np.abs(TRUTH).mean((3, 4)))
    np.testing.assert_allclose(correlation(2 * TRUTH + 5, TRUTH), 1)
    np.testing.assert_allclose(correlation(-TRUTH, TRUTH), -1)


def test_relative_l2_is_of_whole_states() -> None:
    error = np.linalg.norm((ENSEMBLE[0] - TRUTH).reshape(3, 4, -1), axis=-1)
    np.testing.assert_allclose(
        relative_l2(ENSEMBLE[0], TRUTH), error / np.linalg.norm(TRUTH.reshape(3, 4, -1), axis=-1)
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_is_constant_in_space_has_no_vrmse_and_no_correlation(kind: type) -> None:
    truth = TRUTH.astype(kind)
    truth[1, 2, 0] = 0.1
    for scores in (vrmse(ENSEMBLE[0], truth), correlation(ENSEMBLE[0], truth)):
        assert np.argwhere(np.isnan(scores)).tolist() == [[1, 2, 0]]
    constant = np.broadcast_to(TRUTH.mean((3, 4), keepdims=True), TRUTH.shape)
    assert (correlation(constant, TRUTH) == 0).all()


def test_two_cosines_correlate_by_the_cosine_of_their_shift() -> None:
    x = 2 * np.pi * np.arange(64) / 64
    truth = np.cos(x)[None, None, None]
    np.testing.assert_allclose(correlation(np.cos(x - 0.7)[None, None, None], truth), math.cos(0.7))


# --------------------------------------------------------------------------- the time of correlation


def test_the_time_of_correlation_is_interpolated_and_censored() -> None:
    curves = np.array([[0.9, 0.7, 0.95], [0.95, 0.9, 0.85], [0.6, 0.9, 0.9], [0.8, 0.9, 0.9]])
    times = correlation_times(curves, step=0.5)
    np.testing.assert_allclose(times.times, [0.5 * 1.5, 1.5, 0.5 * 0.5, 0.5 * 1.0])
    assert times.censored.tolist() == [False, True, False, False]
    assert times.estimate().note == "a lower bound: 1 of 4 reach the end of the rollout"
    assert times.estimate().value == pytest.approx(np.mean(times.times))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first floats of a process take seconds
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(0.05, 0.95))
def test_the_time_of_correlation_lies_within_the_rollout(curve: list[float], threshold: float) -> None:
    times = correlation_times(np.array([curve]), threshold=threshold)
    assert 0 < times.times[0] <= len(curve)
    assert times.censored[0] == all(c > threshold for c in curve)


def test_channels_are_averaged_before_the_time_of_correlation() -> None:
    curves = np.array([[[1.0, 0.8], [0.9, 0.5]]])  # means .9 and .7
    assert correlation_times(curves).times[0] == pytest.approx(1.5)


def test_a_correlation_that_is_not_defined_is_refused_unless_it_has_fallen_before() -> None:
    with pytest.raises(UserError, match="trajectory 0 is not defined at step 2"):
        correlation_times(np.array([[0.9, np.nan, 0.1]]))
    assert correlation_times(np.array([[0.7, np.nan]])).times[0] == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="0 < threshold < 1"):
        correlation_times(np.ones((1, 3)), threshold=1.5)


# --------------------------------------------------------------------------- ensembles


def crps_by_double_sums(ensemble: np.ndarray, truth: np.ndarray, alpha: float) -> np.ndarray:
    members = len(ensemble)
    pairs = np.abs(ensemble[:, None] - ensemble[None]).sum((0, 1))
    fair = np.abs(ensemble - truth).mean(0) - pairs / (2 * members * (members - 1))
    own = np.abs(ensemble - truth).mean(0) - pairs / (2 * members**2)
    return (alpha * fair + (1 - alpha) * own).mean((3, 4))


@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.95, 1.0])
def test_crps_is_its_definition_by_double_sums(members: int, alpha: float) -> None:
    expected = crps_by_double_sums(ENSEMBLE[:members], TRUTH, alpha)
    np.testing.assert_allclose(crps(ENSEMBLE[:members], TRUTH, alpha), expected, rtol=1e-12)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=9), st.floats(-1e6, 1e6, width=32), st.floats(0, 1)
)
def test_crps_of_any_values_is_its_definition(values: list[float], truth: float, alpha: float) -> None:
    ensemble, known = np.array(values).reshape(-1, 1, 1, 1, 1, 1), np.full((1, 1, 1, 1, 1), truth)
    expected = crps_by_double_sums(ensemble, known, alpha)
    np.testing.assert_allclose(crps(ensemble, known, alpha), expected, rtol=1e-9, atol=1e-6)


def test_crps_is_that_of_scoringrules() -> None:
    sr = package("scoringrules", "scoringrules")
    for alpha, estimator in ((1.0, "fair"), (0.0, "nrg")):
        expected = sr.crps_ensemble(TRUTH, np.moveaxis(ENSEMBLE, 0, -1), estimator=estimator, backend="numpy")
        np.testing.assert_allclose(crps(ENSEMBLE, TRUTH, alpha), expected.mean((3, 4)), rtol=1e-12)


def test_crps_of_a_calibrated_gaussian_is_one_over_root_pi_for_any_number_of_members() -> None:
    """The fair score is unbiased in M; the ensemble's own is larger by 1/M."""
    generator = np.random.default_rng(3)
    for members in (2, 5, 16, 50):
        draws = generator.normal(size=(members + 1, 200, 1, 1, 100))
        fair, own = crps(draws[1:], draws[0]), crps(draws[1:], draws[0], alpha=0)
        assert np.mean(fair) == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)
        assert np.mean(own) == pytest.approx((1 + 1 / members) / math.sqrt(math.pi), abs=0.02)


def test_crps_of_a_gaussian_is_the_closed_form() -> None:
    """Gneiting et al. 2005, eq. 5, at y = 1.3 for a standard normal, by its own quantiles."""
    from scipy.special import ndtr, ndtri

    members = 4000
    ensemble = ndtri((np.arange(members) + 0.5) / members).reshape(-1, 1, 1, 1, 1)
    y, density = 1.3, math.exp(-(1.3**2) / 2) / math.sqrt(2 * math.pi)
    closed = y * (2 * float(ndtr(y)) - 1) + 2 * density - 1 / math.sqrt(math.pi)
    assert crps(ensemble, np.full((1, 1, 1, 1), y), alpha=0).item() == pytest.approx(closed, abs=1e-3)


def test_the_order_of_members_does_not_matter() -> None:
    order = [3, 0, 4, 1, 2]
    np.testing.assert_allclose(crps(ENSEMBLE[order], TRUTH), crps(ENSEMBLE, TRUTH), rtol=1e-12)


def test_members_that_agree_score_their_absolute_error() -> None:
    same = np.broadcast_to(ENSEMBLE[0], (4, *TRUTH.shape))
    np.testing.assert_allclose(crps(same, TRUTH), absolute_error(ENSEMBLE[0], TRUTH))
    with pytest.raises(UserError, match="alpha is 2"):
        crps(ENSEMBLE, TRUTH, alpha=2)


# --------------------------------------------------------------------------- means over trajectories


def test_intervals_are_over_trajectories_and_hold_the_mean_as_often_as_they_say() -> None:
    """Of 5 trajectories, by Student's t; a normal interval would hold it in 88% only."""
    scores = np.random.default_rng(11).normal(3, 1, (5, 2000))
    estimates = [over_trajectories(column) for column in scores.T]
    held = np.mean([e.low <= 3 <= e.high for e in estimates])  # type: ignore[operator]
    assert held == pytest.approx(0.95, abs=0.02) and estimates[0].n == 5


def test_scores_that_are_not_defined_are_left_out_and_counted() -> None:
    estimate = over_trajectories(np.array([2.0, np.nan, 3.0]))
    assert (estimate.value, estimate.n) == (2.5, 2) and estimate.note == "not defined in 1 of 3 trajectories"
    nothing = over_trajectories(np.full(2, np.nan))
    assert math.isnan(nothing.value) and nothing.n == 0 and nothing.low is None


def test_one_trajectory_has_no_interval() -> None:
    assert over_trajectories(np.array([2.0])).low is None


def test_a_ratio_is_of_means_and_pairs_trajectories() -> None:
    reference = np.random.default_rng(2).uniform(1, 9, 20)
    estimate = over_trajectories(0.8 * reference, reference)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.8, 0.8, 0.8))
    perfect = over_trajectories(np.zeros(3), np.zeros(3))
    assert math.isnan(perfect.value) and perfect.note == "the reference is 0"
