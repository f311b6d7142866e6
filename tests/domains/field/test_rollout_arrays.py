"""What cannot be scored is refused with what was given and what to do; what is large is read a block at a time."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field import rollout_arrays
from afresh.domains.field.rollout_arrays import ensemble_blocks, prediction_blocks
from afresh.domains.field.scores import crps, vrmse

TRUTH = np.random.default_rng(0).normal(size=(3, 5, 2, 8))
ENSEMBLE = np.random.default_rng(1).normal(size=(4, 3, 5, 2, 8))


@pytest.mark.parametrize(
    ("prediction", "truth", "words"),
    [
        (TRUTH, TRUTH[:, :4], r"rollout has 5 steps and the truth has 4\. Cut the rollout to 4 steps"),
        (TRUTH[:, :2], TRUTH, r"rollout has 2 steps and the truth has 5\. Cut the truth to 2 steps"),
        (TRUTH[:2], TRUTH, "rollout has 2 trajectories and the truth has 3"),
        (TRUTH[:, :, :1], TRUTH, "rollout has 1 channels and the truth has 2"),
        (TRUTH[..., :4], TRUTH, "rollout has 4 points along axis 0 of space and the truth has 8"),
        (ENSEMBLE, TRUTH, "as many axes"),
        (
            TRUTH[..., 0],
            TRUTH[..., 0],
            r"truth has the shape \(3, 5, 2\)\. Give \(trajectories, time, channels, \*space\)",
        ),
        (TRUTH[:0], TRUTH[:0], "at least one of each"),
    ],
)
def test_shapes_that_differ_are_refused(prediction: np.ndarray, truth: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        vrmse(prediction, truth)


def test_an_ensemble_needs_its_axis_and_two_members() -> None:
    with pytest.raises(UserError, match="one axis more, for its members"):
        crps(TRUTH, TRUTH)
    with pytest.raises(UserError, match=r"1 member, which has no spread\. Draw at least two"):
        crps(ENSEMBLE[:1], TRUTH)
    with pytest.raises(UserError, match="rollout has 5 steps and the truth has 3"):
        crps(ENSEMBLE, TRUTH[:, :3])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_values_that_are_not_finite_are_refused_with_their_place(value: float) -> None:
    ensemble = ENSEMBLE.copy()
    ensemble[2, 1, 3, 1, 4] = value
    with pytest.raises(UserError, match=r"ensemble holds .* trajectory 1, step 4, channel 1\. Score the first 3 steps"):
        crps(ensemble, TRUTH)
    truth = TRUTH.copy()
    truth[2, 0, 0, 0] = value
    with pytest.raises(UserError, match=r"truth holds .* trajectory 2, step 1, channel 0\. Leave that trajectory out"):
        vrmse(TRUTH, truth)


def test_blocks_hold_every_lead_once_and_no_more_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = crps(ENSEMBLE, TRUTH), vrmse(TRUTH + 1, TRUTH)
    monkeypatch.setattr(rollout_arrays, "BLOCK", 2 * 4 * 16)  # two leads of four members
    blocks = list(ensemble_blocks(ENSEMBLE, TRUTH))
    assert [b.leads for b in blocks[:3]] == [slice(0, 2), slice(2, 4), slice(4, 5)] and len(blocks) == 9
    assert sum(b.truth.size for b in prediction_blocks(TRUTH, TRUTH)) == TRUTH.size
    np.testing.assert_array_equal(crps(ENSEMBLE, TRUTH), whole[0])
    np.testing.assert_array_equal(vrmse(TRUTH + 1, TRUTH), whole[1])
