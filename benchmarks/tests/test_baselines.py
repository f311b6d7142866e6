"""Which settings of a baseline are tried, and which is kept."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.recommend.baselines import BASELINES, popularity_in_time, tune_baseline

ITEMS = 12


def drawn(users: int, seed: int) -> list[np.ndarray]:
    """Histories of two tastes: items 0 to 5, and 6 to 11."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(2, 6, users)
    return [generator.permutation(6)[:n] + 6 * int(generator.integers(2)) for n in sizes]


def test_the_setting_that_predicts_best_is_kept() -> None:
    histories = drawn(80, 4)
    train, targets = [h[:-1] for h in histories], np.array([h[-1] for h in histories])
    found = tune_baseline(BASELINES[1], train, ITEMS, targets, seconds=60)
    assert found.untried == 0 and len(found.tried) == len(BASELINES[1].grid)
    assert max(t.score for t in found.tried) == next(t.score for t in found.tried if t.settings == found.settings)


def test_the_first_setting_is_tried_even_without_time() -> None:
    histories = drawn(80, 4)
    train, targets = [h[:-1] for h in histories], np.array([h[-1] for h in histories])
    found = tune_baseline(BASELINES[1], train, ITEMS, targets, seconds=0)
    assert len(found.tried) == 1 and found.untried == len(BASELINES[1].grid) - 1
    assert found.settings == BASELINES[1].grid[0]


def test_popularity_in_time_is_tried_where_there_are_times() -> None:
    """Taste changes at the end: the newest items are what comes next."""
    histories = [np.array([0, 1, 2]) for _ in range(30)] + [np.array([0, 5]) for _ in range(10)]
    times = [np.array([0.0, 1.0, 2.0]) for _ in range(30)] + [np.array([0.0, 1e9]) for _ in range(10)]
    targets = np.array([5] * 40)
    found = tune_baseline(
        BASELINES[0], histories, 6, targets, seconds=60, times=times, questions=[np.array([], np.int64)] * 40
    )
    assert found.settings and max(t.score for t in found.tried) == 1


def test_popularity_in_time_by_hand() -> None:
    histories = [np.array([0, 1]), np.array([0, 2]), np.array([0])]
    times = [np.array([0.0, 100.0]), np.array([50.0, 200.0]), np.array([190.0])]
    recent = popularity_in_time(histories, 4, times, window=100)([np.array([3])])
    assert recent.tolist() == [[1, 1, 1, 0]]
    decayed = popularity_in_time(histories, 4, times, half_life=100)([np.array([3])])
    assert decayed[0] == pytest.approx([2**-2 + 2**-1.5 + 2**-0.1, 2**-1, 1, 0])
