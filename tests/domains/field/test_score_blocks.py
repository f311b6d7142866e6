"""What is large is read a block at a time."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.domains.field import scores
from afresh.domains.field.scores import crps, ensemble_blocks, prediction_blocks, vrmse

TRUTH = np.random.default_rng(0).normal(size=(3, 5, 2, 8))
ENSEMBLE = np.random.default_rng(1).normal(size=(4, 3, 5, 2, 8))


def test_blocks_hold_every_lead_once_and_no_more_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = crps(ENSEMBLE, TRUTH), vrmse(TRUTH + 1, TRUTH)
    monkeypatch.setattr(scores, "BLOCK", 2 * 4 * 16)  # two leads of four members
    blocks = list(ensemble_blocks(ENSEMBLE, TRUTH))
    assert [b.leads for b in blocks[:3]] == [slice(0, 2), slice(2, 4), slice(4, 5)] and len(blocks) == 9
    assert sum(b.truth.size for b in prediction_blocks(TRUTH, TRUTH)) == TRUTH.size
    np.testing.assert_array_equal(crps(ENSEMBLE, TRUTH), whole[0])
    np.testing.assert_array_equal(vrmse(TRUTH + 1, TRUTH), whole[1])
