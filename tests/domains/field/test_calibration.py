"""An ensemble of which the truth is one more draw is calibrated by every measure, whatever its size; others are not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field.calibration import coverage, rank_histogram, ranks, spread_and_error, spread_skill

SIZES = (2, 5, 16, 50)


def draws(members: int, trajectories: int = 100, points: int = 40, seed: int = 0, spread: float = 1.0) -> tuple:
    """An ensemble and the truth, independent normal values with one lead; the ensemble's scale is `spread`."""
    everyone = np.random.default_rng(seed).normal(size=(members + 1, trajectories, 1, 1, points))
    return spread * everyone[1:], everyone[0]


@pytest.mark.parametrize("members", SIZES)
def test_a_calibrated_ensemble_has_as_much_spread_as_error(members: int) -> None:
    (ratio,) = spread_skill(spread_and_error(*draws(members)))
    assert ratio.value == pytest.approx(1, abs=0.03)  # without the factor, 0.82 for two members
    assert ratio.low < 1 < ratio.high and ratio.n == 100  # type: ignore[operator]


def test_spread_and_error_are_their_definitions() -> None:
    ensemble, truth = draws(5)
    spread = spread_and_error(ensemble, truth)
    biased = ensemble.var(0).mean(-1)  # divided by M
    np.testing.assert_allclose(spread.variance, biased * (5 + 1) / (5 - 1))
    np.testing.assert_allclose(spread.error, ((ensemble.mean(0) - truth) ** 2).mean(-1))


def test_too_little_and_too_much_spread_is_seen() -> None:
    for factor in (0.5, 2.0):
        ensemble, truth = draws(16, spread=factor)
        (ratio,) = spread_skill(spread_and_error(ensemble, truth))
        assert ratio.value == pytest.approx(factor / math.sqrt((16 + factor**2) / 17), abs=0.03)
        assert (ratio.high < 1) == (factor < 1)  # type: ignore[operator]


def test_no_error_at_all_has_no_ratio() -> None:
    truth = np.ones((3, 1, 1, 4))
    (ratio,) = spread_skill(spread_and_error(np.broadcast_to(truth, (2, *truth.shape)), truth))
    assert math.isnan(ratio.value) and ratio.low is None


@pytest.mark.parametrize("members", SIZES)
def test_ranks_of_a_calibrated_ensemble_are_flat_within_binomial_error(members: int) -> None:
    found = ranks(*draws(members))
    shares, n = found.shares.mean((0, 1)), 100 * 40
    expected = 1 / (members + 1)
    assert shares.sum() == pytest.approx(1)
    assert np.abs(shares - expected).max() < 4.5 * math.sqrt(expected * (1 - expected) / n)
    np.testing.assert_allclose(found.exchanged[:, 0], found.shares.mean(1))
    np.testing.assert_allclose(found.exchanged.sum(1), 1)  # each rank is somebody's in every place
    histogram = rank_histogram(found, draws=200)
    assert histogram.p > 0.01 and len(histogram.shares) == members + 1


def test_a_rank_is_the_number_of_members_below_the_truth() -> None:
    ensemble = np.array([3.0, 1.0, 2.0]).reshape(3, 1, 1, 1, 1)
    for truth, rank in ((0.0, 0), (1.5, 1), (2.5, 2), (9.0, 3)):
        assert ranks(ensemble, np.full((1, 1, 1, 1), truth)).shares[0, 0].tolist() == np.eye(4)[rank].tolist()


def test_equal_values_have_ranks_at_random() -> None:
    shares = ranks(np.zeros((3, 10, 2, 1, 200)), np.zeros((10, 2, 1, 200))).shares.mean((0, 1))
    np.testing.assert_allclose(shares, 0.25, atol=0.03)


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_an_uncalibrated_ensemble_has_uneven_ranks(spread: float) -> None:
    histogram = rank_histogram(ranks(*draws(8, spread=spread)), draws=200)
    shares = [s.value for s in histogram.shares]
    assert (shares[0] > shares[4]) == (spread < 1)
    assert histogram.p < 0.01 and histogram.unevenness > 3 * histogram.expected


def test_the_test_of_ranks_is_right_where_points_and_leads_depend_on_one_another() -> None:
    """Each trajectory is one value everywhere, of which a chi-square test would count 50 independent ones."""
    generator, small = np.random.default_rng(4), 0
    for _ in range(200):
        everyone = np.broadcast_to(generator.normal(size=(6, 6, 1, 1, 1)), (6, 6, 5, 1, 10))
        small += rank_histogram(ranks(everyone[1:], everyone[0]), draws=99).p <= 0.1
    assert small <= 35  # a tenth of 200 by chance, and fewer where many histograms are equally uneven


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("members", SIZES)
def test_a_calibrated_ensemble_of_any_size_covers_what_it_says(members: int, share: float) -> None:
    (estimate,) = coverage(ranks(*draws(members, trajectories=200)), share)
    assert estimate.value == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / (200 * 40)))
    assert estimate.low < share < estimate.high or abs(estimate.value - share) < 0.01  # type: ignore[operator]


@pytest.mark.parametrize("members", range(2, 40))
@pytest.mark.parametrize("share", [0.5, 0.9, 0.123])
def test_flat_ranks_cover_the_share_exactly(members: int, share: float) -> None:
    from afresh.domains.field.calibration import Ranks

    flat = Ranks(np.full((3, 1, members + 1), 1 / (members + 1)), np.empty((3, members + 1, members + 1)))
    assert coverage(flat, share)[0].value == pytest.approx(share, abs=1e-12)


def test_coverage_where_the_share_is_one_of_the_members_is_a_count() -> None:
    """Of 19 members, the smallest and the largest hold exactly nine tenths."""
    ensemble, truth = draws(19)
    inside = ((truth >= ensemble.min(0)) & (truth <= ensemble.max(0))).mean()
    assert coverage(ranks(ensemble, truth), 0.9)[0].value == pytest.approx(inside)
    for share in (0, 1, 90):
        with pytest.raises(UserError, match="between 0 and 1"):
            coverage(ranks(ensemble, truth), share)


def test_the_order_of_members_does_not_matter() -> None:
    ensemble, truth = draws(5)
    shuffled = ensemble[[4, 2, 0, 1, 3]]
    np.testing.assert_allclose(ranks(shuffled, truth).shares, ranks(ensemble, truth).shares)
    np.testing.assert_allclose(spread_and_error(shuffled, truth).variance, spread_and_error(ensemble, truth).variance)
