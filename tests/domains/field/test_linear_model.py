"""Linear dynamics are found; the rest is persistence."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field.linear_model import Kind, fit_linear_model, roll_out
from afresh.domains.field.scores import vrmse


def diffusion(trajectories: int, steps: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A periodic field, to each state of which a tenth of its Laplacian is added; it also moves by a cell along x."""
    states = [np.random.default_rng(seed).normal(size=(trajectories, 1, *shape)) + 3]
    for _ in range(steps - 1):
        last = states[-1]
        axes = range(2, last.ndim)
        change = sum(np.roll(last, 1, a) + np.roll(last, -1, a) - 2 * last for a in axes)
        states.append(np.roll(last + 0.1 * change, 1, 2))
    return np.stack(states, 1)


@pytest.mark.parametrize(("shape", "kind"), [((12,), "whole"), ((40,), "stencil"), ((10, 8), "stencil")])
def test_linear_dynamics_are_found_and_followed(shape: tuple[int, ...], kind: Kind) -> None:
    states = diffusion(20, 6, shape)
    model = fit_linear_model(states[:16], (True,) * len(shape), kind)
    assert model.kind == kind and model.error < 1e-6
    others = 3 + (states[16:] - 3) / 2  # well within the range of training
    rollout = roll_out(model, others[:, 0], 5)
    assert rollout.shape == others[:, 1:].shape
    assert vrmse(rollout, others[:, 1:]).max() < 1e-3


def test_at_an_edge_that_is_not_periodic_the_values_of_the_edge_go_on() -> None:
    """The field moves to the right, and its left edge stays: exact with the values of the edge beyond it."""
    states = [np.random.default_rng(1).normal(size=(10, 1, 30))]
    for _ in range(5):
        states.append(np.concatenate([states[-1][..., :1], states[-1][..., :-1]], axis=-1))
    training = np.stack(states, 1)
    assert fit_linear_model(training, (False,), "stencil").error < 1e-6
    assert fit_linear_model(training, (True,), "stencil").error > 1e-3


def test_noise_without_dynamics_is_no_better_than_its_mean() -> None:
    noise = np.random.default_rng(2).normal(size=(10, 20, 1, 8))
    model = fit_linear_model(noise, (True,))
    assert model.error == pytest.approx(0.5, abs=0.1)  # the mean has half of persistence's squared error


def test_the_kind_is_the_one_with_the_least_error() -> None:
    """A matrix of the whole sees what is far away; the stencil of 20 trajectories has fewer weights to find."""
    assert fit_linear_model(diffusion(20, 6, (24,)), (True,)).kind == "stencil"
    state = np.random.default_rng(4).normal(size=(60, 1, 16))
    assert fit_linear_model(np.stack([state, state[..., ::-1], state], 1), (True,)).kind == "whole"  # mirrored


def test_a_rollout_stays_within_the_range_of_training() -> None:
    growing = 1.5 ** np.arange(8)[None, :, None, None] * np.random.default_rng(3).normal(size=(12, 1, 1, 6))
    model = fit_linear_model(growing, (True,))
    rollout = roll_out(model, growing[:2, -1], 3000)
    assert rollout.max() <= growing.max() and rollout.min() >= growing.min()


def test_one_trajectory_is_enough_and_channels_may_be_constant() -> None:
    states = np.concatenate([diffusion(1, 12, (20,)), np.full((1, 12, 1, 20), 7.0)], axis=2)
    model = fit_linear_model(states, (True,))
    rollout = roll_out(model, states[:, 0], 3)
    assert np.isfinite(rollout).all() and (rollout[:, :, 1] == 7).all()


def test_too_little_and_not_finite_training_data_is_refused() -> None:
    states = diffusion(3, 4, (10,))
    with pytest.raises(UserError, match="at least 2 transitions"):
        fit_linear_model(states[:, :1], (True,))
    with pytest.raises(UserError, match="2 axes of space have a boundary"):
        fit_linear_model(states, (True, True))
    states[1, 2, 0, 3] = np.nan
    with pytest.raises(UserError, match="Trajectory 1 of the training data holds values that are not finite"):
        fit_linear_model(states, (True,))
