"""What is measured of samples while a model is aligned."""

from __future__ import annotations

import pytest
import torch

from afresh.core import Space
from afresh.core.rng import Rng
from afresh.engine.alignment.alignment_batches import distance_from_base


def test_the_distance_of_tokens_is_the_share_of_different_ones_whatever_their_lengths() -> None:
    space = Space("tokens", (8,), (6,), {"end": 5}, stream=True)
    base = torch.tensor([[1, 2, 3], [4, 5, 5]])
    longer = torch.tensor([[1, 2, 0, 5, 5], [4, 5, 5, 5, 5]])
    assert distance_from_base(base, base, space) == 0
    assert distance_from_base(longer, base, space) == distance_from_base(base, longer, space) == pytest.approx(1 / 10)


def test_the_distance_of_fields_is_in_variances_of_the_data() -> None:
    x = 3 * Rng(0).normal("x", torch.arange(4000), (2,))
    space = Space("field", (2,), std=3.0)
    assert distance_from_base(x[:2000], x[2000:], space) == pytest.approx(2, abs=0.1)
