"""Rejection sampling: what is learnt is the best of n, of the model as it is or of the reference, and no better."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch

from afresh.aligners.selected import Selected, SelectedConfig
from afresh.core import Cond, Space
from afresh.rng import Rng

SPACE = Space("field", (1, 1))
N, SIZE = 4, 4096


def world(now: float, before: float) -> Any:
    """Samples are uniform on [m, m + 1), with m of the modules; the reward is the value."""

    def sample(modules: Any, config: Any, space: Any, cond: Any, rng: Rng, index: Any, settings: Any) -> torch.Tensor:
        return (modules["start"] + rng.uniform("x", index)).view(-1, 1, 1)

    return SimpleNamespace(
        family=SimpleNamespace(sample=sample),
        modules={"start": now},
        reference={"start": before},
        config=None,
        space=SPACE,
        settings=None,
        rng=Rng(0),
        device="cpu",
        requests=lambda first, n: Cond(n),
        reward=lambda x, cond: x.flatten(),
    )


def test_of_the_reference_the_best_of_n_is_learnt_whatever_the_model_is_by_now() -> None:
    for now in (0.0, 5.0):
        batch = Selected(SelectedConfig(samples=N, source="reference"), world(now, 0.0))(0, SIZE)
        best = batch.x.flatten()
        # The greatest of n uniform numbers has mean n / (n + 1) and variance n / ((n + 1)^2 (n + 2)).
        error = math.sqrt(N / ((N + 1) ** 2 * (N + 2)) / SIZE)
        assert abs(float(best.mean()) - N / (N + 1)) < 4 * error
        assert float(best.max()) < 1


def test_of_the_model_it_is_the_best_of_the_best() -> None:
    batch = Selected(SelectedConfig(samples=N), world(5.0, 0.0))(0, SIZE)
    assert float(batch.x.min()) >= 5
