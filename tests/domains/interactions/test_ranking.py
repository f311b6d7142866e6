"""Ranks and the metrics of them against hand-made cases and closed forms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from afresh.domains.interactions.ranking import (
    accuracy,
    best,
    chunks,
    contained,
    hit_rate,
    ndcg,
    over_users,
    rank_all,
    ranks,
    reciprocal_rank,
)
from afresh.engine.evaluation.estimate import bootstrap, mean, ratio

SCORES = np.array([[0.1, 0.9, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]], np.float32)


def test_ties_count_against_the_model() -> None:
    assert ranks(SCORES, np.array([2, 0])).tolist() == [3, 4]
    assert ranks(SCORES, np.array([1, 3])).tolist() == [1, 4]


def test_excluded_items_are_not_counted_and_an_excluded_target_is_last() -> None:
    excluded = np.array([[False, True, False, False], [True, False, False, False]])
    assert ranks(SCORES, np.array([2, 1]), excluded).tolist() == [2, 3]
    assert ranks(SCORES, np.array([1, 0]), excluded).tolist() == [4, 4]


def test_a_row_without_a_target_has_the_rank_0_which_is_no_hit() -> None:
    excluded = np.array([[False, True, False, False]] * 2)
    assert ranks(SCORES, np.array([-1, 3])).tolist() == [0, 4]
    found = ranks(SCORES, np.array([-1, 3]), excluded)
    assert found.tolist() == [0, 3]
    assert [
        metric(found).tolist()[0] for metric in (lambda r: hit_rate(r, 9), lambda r: ndcg(r, 9), reciprocal_rank)
    ] == [0] * 3


def test_what_is_not_a_number_counts_against_the_model() -> None:
    scores = np.array([[np.nan, 0.5, 0.2]], np.float32)
    assert [int(ranks(scores, np.array([t]))[0]) for t in (0, 1, 2)] == [3, 2, 3]
    assert best(scores, 2).tolist() == [[1, 2]]


def test_ranks_are_those_of_a_full_sort() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 20, (50, 30)).astype(np.float32)
    targets = generator.integers(0, 30, 50)
    excluded = generator.random((50, 30)) < 0.3
    for row, target, out, found in zip(scores, targets, excluded, ranks(scores, targets, excluded), strict=True):
        others = [s for item, s in enumerate(row) if not out[item] and item != target]
        assert found == (len(others) if out[target] else sum(s >= row[target] for s in others)) + 1


def test_lists_are_the_head_of_a_stable_sort() -> None:
    """With all items allowed, with some, with fewer than the list is long, and with none."""
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 6, (40, 25)).astype(np.float32)
    excluded = generator.random((40, 25)) < np.linspace(0, 1, 40)[:, None]
    allowed = (~excluded).sum(1)
    assert allowed.min() == 0 and ((allowed > 0) & (allowed < 7)).any() and allowed.max() == 25
    for row, out, found in zip(scores, excluded, best(scores, 7, excluded), strict=True):
        want = sorted(np.flatnonzero(~out), key=lambda item: (-row[item], item))[:7]
        assert found.tolist() == [*want, *[-1] * (7 - len(want))]


def test_metrics_by_hand() -> None:
    one = np.array([1, 3, 11])
    assert hit_rate(one, 10).tolist() == [1, 1, 0]
    assert ndcg(one, 10).tolist() == [1, pytest.approx(0.5), 0]
    assert reciprocal_rank(one).tolist() == [1, pytest.approx(1 / 3), pytest.approx(1 / 11)]


def test_random_scores_hit_as_often_as_chance() -> None:
    """HR@10 of 100 items is 0.1, and NDCG@10 the sum of discounts over 100."""
    generator = np.random.default_rng(2)
    found = accuracy(ranks(generator.random((20_000, 100), np.float32), np.zeros(20_000, np.int64)))
    chance = {"HR@10": 0.1, "NDCG@10": np.sum(1 / np.log2(2 + np.arange(10))) / 100}
    chance["MRR"] = np.sum(1 / np.arange(1, 101)) / 100
    assert list(found) == list(chance)
    for name, value in chance.items():
        assert found[name].low < value < found[name].high


def constant(histories: Sequence[np.ndarray]) -> np.ndarray:
    """Item 4 first, then 3, down to 0, for everyone."""
    return np.tile(np.arange(5, dtype=np.float32), (len(histories), 1))


def test_the_whole_catalogue_is_ranked_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [np.array([4, 3]), np.array([0]), np.array([], np.int64)]
    targets = np.array([2, 2, 4])
    whole = rank_all(constant, histories, targets, 5, k=3)
    assert whole.ranks.tolist() == [1, 3, 1]
    assert whole.lists.tolist() == [[2, 1, 0], [4, 3, 2], [4, 3, 2]]
    monkeypatch.setattr("afresh.domains.interactions.ranking.CELLS", 5)
    again = rank_all(constant, histories, targets, 5, k=3, seen=True)
    assert again.ranks.tolist() == [3, 3, 1] and again.lists.tolist() == [[4, 3, 2]] * 3


def test_probabilities_are_a_softmax_over_what_is_allowed() -> None:
    found = rank_all(constant, [np.array([4])], np.array([3]), 5, k=2, probability=True)
    weight = np.exp(np.arange(4))
    assert found.probability is not None
    assert found.probability[0] == pytest.approx((weight / weight.sum())[[3, 2]])


def test_a_list_is_shorter_where_little_is_left_to_recommend() -> None:
    """Who had four of five items is recommended the fifth, with certainty, and no item twice."""
    found = rank_all(constant, [np.array([0, 1, 3, 4])], np.array([2]), 5, k=3, probability=True)
    assert found.lists.tolist() == [[2, -1, -1]] and found.ranks.tolist() == [1]
    assert found.probability is not None and found.probability.tolist() == [[1, 0, 0]]


def test_pieces_stay_bounded() -> None:
    sizes = {s.stop - s.start for s in chunks(1000, 100_000)}
    assert max(sizes) * 100_000 <= 1 << 24
    assert [s.start for s in chunks(3, 1 << 30)] == [0, 1, 2]


def test_what_a_history_holds() -> None:
    assert contained([np.array([1, 1]), np.array([], np.int64)], 3).tolist() == [[False, True, False], [False] * 3]


def test_the_interval_is_over_users() -> None:
    """Ten rows a user that all agree say no more than one row a user."""
    values = np.random.default_rng(3).random(200)
    alone, repeated = over_users(values), over_users(np.repeat(values, 10), np.repeat(np.arange(200), 10))
    assert (repeated.value, repeated.low, repeated.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert repeated.n == 200


def test_the_bootstrap_agrees_with_its_limit() -> None:
    generator = np.random.default_rng(4)
    top, bottom = generator.random(2000), 1 + generator.random(2000)
    for found, limit in ((bootstrap(top), mean(top)), (bootstrap(top, bottom), ratio(top, bottom))):
        assert found.value == pytest.approx(limit.value)
        assert (found.low, found.high) == pytest.approx((limit.low, limit.high), abs=2e-3)
    assert bootstrap(top[:1]).low is None
    assert bootstrap(np.ones(40)).high == 1 and 0.8 < (bootstrap(np.ones(40)).low or 0) < 1
