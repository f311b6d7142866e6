"""What lists are like: cases whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from afresh.domains.interactions.list_metrics import (
    calibration,
    coverage,
    exposure,
    gini,
    intra_list_diversity,
    novelty,
    popularity_lift,
    users_of,
)

HISTORIES = [np.array([0, 1, 1]), np.array([0]), np.array([0, 2]), np.array([0, 1])]


def test_users_are_counted_once() -> None:
    assert users_of(HISTORIES, 4).tolist() == [4, 2, 1, 0]


def test_coverage_and_gini_of_lists_that_are_known() -> None:
    same = np.tile([0, 1], (50, 1))
    assert coverage(same, 10).value == pytest.approx(0.2)
    assert gini(np.tile([3], (50, 1)), 10).value == pytest.approx(1)
    each = np.arange(40).reshape(20, 2)
    assert coverage(each, 40).value == 1 and gini(each, 40).value == pytest.approx(0)
    assert exposure(np.array([[1, -1], [1, 0]]), 3).tolist() == [1, 2, 0]


def test_gini_is_the_mean_difference_of_pairs() -> None:
    """The mean of |a - b| over pairs of items, divided by twice the mean exposure."""
    lists = np.random.default_rng(0).integers(0, 12, (60, 3))
    x = exposure(lists, 12)
    pairs = np.abs(x[:, None] - x).sum() / (12 * 11)
    found = gini(lists, 12)
    assert found.value == pytest.approx(pairs / (2 * x.mean()))
    assert found.low < found.value < found.high


def test_novelty_is_the_self_information() -> None:
    counts = users_of(HISTORIES, 4)
    assert novelty(np.array([[0], [0]]), counts, 4).value == 0
    assert novelty(np.array([[1, 2], [3, -1]]), counts, 4).value == pytest.approx((1 + 2 + 2) / 3)


def test_popularity_lift_of_what_users_took_is_none() -> None:
    counts = users_of(HISTORIES, 4)
    lists = np.array([[0, 1], [0, -1], [0, 2], [0, 1]])
    assert popularity_lift(lists, [h[-2:] if len(h) < 3 else h[:2] for h in HISTORIES], counts).value == pytest.approx(
        0, abs=1e-12
    )
    assert popularity_lift(np.array([[0]] * 2), [np.array([1]), np.array([1])], counts).value == pytest.approx(1)
    assert popularity_lift(np.array([[0]] * 2), [np.array([1]), np.array([], int)], counts).n == 1


def test_diversity_within_a_list() -> None:
    vectors = np.array([[1.0, 0], [2, 0], [0, 3], [1, 1], [0, 0]])
    alike, across = np.array([[0, 1]] * 3), np.array([[0, 2, -1]] * 3)
    assert intra_list_diversity(alike, vectors).value == pytest.approx(0, abs=1e-12)
    assert intra_list_diversity(across, vectors).value == pytest.approx(1)
    assert intra_list_diversity(np.array([[0, 4]] * 3), vectors).value == pytest.approx(1)
    mixed = intra_list_diversity(np.array([[0, 2, 3]] * 3), vectors)
    assert mixed.value == pytest.approx(1 - (0 + 2 * 0.5**0.5) / 3)


def test_diversity_by_co_occurrence_equals_brute_force() -> None:
    generator = np.random.default_rng(1)
    taken = (generator.random((30, 80)) < 0.2).astype(float)  # items by users
    lists = np.array([generator.choice(30, 5, replace=False) for _ in range(40)])
    want = []
    for each in lists:
        cosines = [taken[i] @ taken[j] / np.sqrt(taken[i].sum() * taken[j].sum()) for i in each for j in each if i != j]
        want.append(1 - np.mean(cosines))
    assert intra_list_diversity(lists, sparse.csr_matrix(taken)).value == pytest.approx(np.mean(want))


def test_calibration_of_true_and_of_doubled_probabilities() -> None:
    generator = np.random.default_rng(2)
    true = generator.dirichlet(np.ones(6), 4000) * 0.8  # a fifth of the time, the next item is in no list
    ends, drawn = np.cumsum(true, 1), generator.random((4000, 1))
    hit = ((drawn < ends) & (drawn >= ends - true)).astype(float)
    assert hit.sum(1).max() == 1 and hit.sum() == pytest.approx(0.8 * 4000, rel=0.05)
    error, floor = calibration(true, hit)
    assert error.value == pytest.approx(floor, abs=0.004) and floor < 0.01
    worse, _ = calibration(true / 2, hit)
    assert worse.value == pytest.approx(0.8 / 6 / 2, abs=0.01) and worse.low > error.high
