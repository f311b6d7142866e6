"""References, which know nothing of the dynamics."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field.calibration import coverage, ranks
from afresh.domains.field.held_rollouts import climatology, persistence

TRAINING = np.random.default_rng(0).normal(size=(6, 10, 2, 5))


def test_persistence_holds_the_initial_state_without_a_copy() -> None:
    initial = TRAINING[:, 0]
    rollout = persistence(initial, 1000)
    assert rollout.shape == (6, 1000, 2, 5) and np.shares_memory(rollout, initial)
    assert (rollout == initial[:, None]).all()
    with pytest.raises(UserError, match="0 steps was asked for"):
        persistence(initial, 0)


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
