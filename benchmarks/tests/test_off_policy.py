"""The simulated users of benchmarks/recommend/off_policy.py, on a few repeats."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.recommend.off_policy import drawn, places, repeat, truth_of, world


def test_lists_are_drawn_with_the_probabilities_that_are_stated() -> None:
    policy = np.tile([0.5, 0.3, 0.2], (20_000, 1))
    items = drawn(np.random.default_rng(0), policy, 2)
    assert (items[:, 0] != items[:, 1]).all()
    assert (items[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert places(policy[:1], np.array([[1, 0]]))[0].tolist() == pytest.approx([0.3, 0.5 / 0.7])


def test_a_few_repeats_are_near_the_true_value() -> None:
    old, new, worth = world(1)
    truth = truth_of(new, worth, 1)
    runs = [repeat(seed, old, new, worth, 1) for seed in range(4)]
    for name in ("ips", "snips", "dr"):
        assert np.mean([r[name][0] for r in runs]) == pytest.approx(truth, abs=0.06)
