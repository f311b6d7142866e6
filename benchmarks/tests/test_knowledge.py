"""What the peers of the filter of knowledge foresee."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.domains.exercises.knowledge.answers import Answers


def test_fsrs_forgets() -> None:
    pytest.importorskip("fsrs", reason="fsrs is not installed: pip install 'afresh[bench]'")
    from benchmarks.knowledge import forgetting

    items, right, counted = np.zeros(6, np.int64), np.ones(6, bool), np.ones(6, bool)
    soon = Answers(items, items, right, np.array([0, 1, 1, 1, 1, 1.0]), counted)
    late = Answers(items, items, right, np.array([0, 1, 1, 1, 1, 300.0]), counted)
    predict = forgetting.fit([soon])
    assert predict(soon)[-1] > predict(late)[-1]
