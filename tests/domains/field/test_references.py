"""References: what knows nothing of the dynamics, and a second truth."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field.calibration import coverage, ranks
from afresh.domains.field.references import climatology, floor_of_two_truths, mean_climatology, persistence
from afresh.domains.field.scores import crps, vrmse

TRAINING = np.random.default_rng(0).normal(size=(6, 10, 2, 5))


def test_persistence_holds_the_initial_state_without_a_copy() -> None:
    initial = TRAINING[:, 0]
    rollout = persistence(initial, 1000)
    assert rollout.shape == (6, 1000, 2, 5) and np.shares_memory(rollout, initial)
    assert (rollout == initial[:, None]).all()
    with pytest.raises(UserError, match="0 steps was asked for"):
        persistence(initial, 0)


def test_the_mean_climatology_is_the_mean_at_each_point() -> None:
    rollout = mean_climatology(TRAINING, trajectories=3, steps=4)
    assert rollout.shape == (3, 4, 2, 5)
    np.testing.assert_allclose(rollout[2, 3], TRAINING.mean((0, 1)))


def test_the_climatology_is_of_training_states_and_calibrated_for_new_ones() -> None:
    ensemble = climatology(TRAINING, members=7, trajectories=3, steps=4, seed=1)
    assert ensemble.shape == (7, 3, 4, 2, 5)
    known = {state.tobytes() for state in TRAINING.reshape(60, 2, 5)}
    assert all(ensemble[m, n, t].tobytes() in known for m in range(7) for n in range(3) for t in range(4))
    assert len({ensemble[m, n, 0].tobytes() for m in range(7) for n in range(3)}) > 10
    training, truth = np.random.default_rng(2).normal(size=(2, 300, 4, 1, 20))
    (covered, *_) = coverage(ranks(climatology(training, 9, 300, 4), truth), 0.5)
    assert covered.value == pytest.approx(0.5, abs=0.03)
    with pytest.raises(UserError, match="training data has the shape"):
        climatology(TRAINING[0], 3, 3, 3)


def test_the_floor_is_what_true_members_score_against_other_truths() -> None:
    generator = np.random.default_rng(3)
    shared = generator.normal(size=(50, 1, 1, 30))
    truths, others = (shared + 0.1 * generator.normal(size=(m, 50, 1, 1, 30)) for m in (5, 3))
    floor = floor_of_two_truths(crps, truths, others)
    np.testing.assert_allclose(floor, np.mean([crps(truths, o) for o in others], axis=0))
    assert floor.mean() == pytest.approx(0.1 / np.sqrt(np.pi), rel=0.05)
    single = floor_of_two_truths(lambda e, t: vrmse(e[0], t), truths, others)
    assert single.shape == (50, 1, 1) and 0.1 < single.mean() < 0.2  # the root of two times 0.1
    with pytest.raises(UserError, match="of the same trajectories"):
        floor_of_two_truths(crps, truths, others[:, :2])
