"""How long a base is tuned."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from afresh.core import Space
from afresh.engine.training.plan_tuning import MOST_PASSES, most_steps

FIELD, TEXT = Space("field", (3, 4, 4)), Space("tokens", (8,), (10,), {"end": 8}, stream=True)


@pytest.mark.parametrize(
    ("space", "lora", "most", "expected"),
    [
        (FIELD, None, math.inf, math.inf),  # as from random weights
        (FIELD, None, 4_000, 400),
        (FIELD, None, 20, MOST_PASSES * 11),  # never fewer than of an adapter
        (FIELD, "adapter", math.inf, MOST_PASSES * 11),
        (TEXT, None, math.inf, MOST_PASSES * 11),
    ],
)
def test_passes_are_bounded_where_more_would_memorise(space: Space, lora: Any, most: float, expected: float) -> None:
    family = SimpleNamespace(plan=SimpleNamespace(most_examples=lambda count: most))
    task: Any = SimpleNamespace(base=SimpleNamespace(lora=lora), space=space, family=family, count=101)
    assert most_steps(task, 10) == expected
