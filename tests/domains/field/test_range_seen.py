"""A rollout is stopped where it leaves what was seen, with the reason, and not before."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field.range_seen import SeenRange, left_what_was_seen, moments_of, seen_range

TRAINING = np.random.default_rng(0).normal(size=(20, 30, 2, 50))


def seen_in(training: np.ndarray) -> SeenRange:
    """Of training states (trajectories, time, channels, *space)."""
    return seen_range(moments_of(training.reshape(-1, *training.shape[2:])))


SEEN = seen_in(TRAINING)
STATES = np.random.default_rng(1).normal(size=(40, 2, 50))


def test_states_like_those_of_training_are_within() -> None:
    assert left_what_was_seen(STATES, SEEN) is None
    assert left_what_was_seen(TRAINING[3], SEEN) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: np.where(np.arange(50) == 7, np.nan, s), "v has 1 values that are not finite"),
        (lambda s: np.where(np.arange(50) == 7, np.inf, s), "v has 1 values that are not finite"),
        (lambda s: np.where(np.arange(50) == 7, -50, s), "v reaches -50, more than 2 times the range"),
        (lambda s: 3.5 * np.sign(s), "v has the energy .* more than 4 times"),
        (lambda s: 0.1 * s, "v has the variance in space .* less than 1/4 of"),
        (lambda s: 0 * s, "v has the variance in space 0, less than 1/4 of"),
    ],
)
def test_the_first_state_that_has_left_is_named_with_its_reason(change: object, words: str) -> None:
    states = STATES.copy()
    states[12:, 1] = change(states[12:, 1])  # type: ignore[operator]
    departure = left_what_was_seen(states, SEEN, channels=("u", "v"))
    assert departure is not None and departure.state == 12
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(departure.reason)


def test_variance_in_space_counts_where_the_energy_does_not() -> None:
    """Each training state is a constant of another height with little variation."""
    training = np.random.default_rng(2).normal(size=(50, 20, 1, 1)) + 0.01 * np.random.default_rng(3).normal(
        size=(50, 20, 1, 30)
    )
    departure = left_what_was_seen(np.tile([0.3, -0.3], 15)[None, None], seen_in(training))
    assert departure is not None and "variance in space" in departure.reason


def test_a_state_that_is_shifted_as_a_whole_has_left_though_its_variance_is_usual() -> None:
    """The means of training states are 1 and -1, of which a state of the mean 2.2 has 4.84 times the energy."""
    rng = np.random.default_rng(4)
    signs = np.where(np.arange(1000) % 2, 1.0, -1.0).reshape(1, -1, 1, 1)
    seen = seen_in(signs + 0.05 * rng.normal(size=(1, 1000, 1, 30)))
    waves = 0.05 * rng.normal(size=(1, 1, 30))
    assert left_what_was_seen(1.5 + waves, seen) is None
    departure = left_what_was_seen(2.2 + waves, seen)
    assert departure is not None and "energy" in departure.reason


def test_a_larger_factor_lets_more_pass() -> None:
    doubled = 3 * STATES
    assert left_what_was_seen(doubled, SEEN) is not None
    assert left_what_was_seen(doubled, SEEN, factor=4) is None
    with pytest.raises(UserError, match=r"factor is 0\.5"):
        left_what_was_seen(doubled, SEEN, factor=0.5)


def test_a_channel_that_was_constant_has_to_stay_so() -> None:
    seen = seen_in(np.full((2, 3, 1, 4), 7.0))
    assert left_what_was_seen(np.full((2, 1, 4), 7.0), seen) is None
    assert left_what_was_seen(np.full((2, 1, 4), 7.1), seen) is not None


def test_other_channels_are_refused() -> None:
    with pytest.raises(UserError, match="with the 2 channels"):
        left_what_was_seen(STATES[:, :1], SEEN)


def test_moments_of_single_states_are_those_of_all_values() -> None:
    """Also where the mean is large beside the deviation."""
    for far, digits in ((0.0, 1e-12), (1e9, 1e-6)):
        moments = moments_of(iter(TRAINING.reshape(-1, 2, 50) + far))
        np.testing.assert_allclose(moments.mean, (TRAINING + far).mean((0, 1, 3)), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(moments.std, TRAINING.std((0, 1, 3)), rtol=digits)
