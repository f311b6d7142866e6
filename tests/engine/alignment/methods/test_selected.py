"""Rejection sampling: what is learnt is the best of n, of the model as it is or of the reference, and no better."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from afresh.core import Batch, Cond, Space
from afresh.core.rng import Rng
from afresh.engine.alignment.methods.selected import SelectedBatches, SelectedConfig, SelectedObjective

SPACE = Space("field", (1, 1))
N, SIZE = 4, 4096


def world(now: float, before: float) -> Any:
    """Samples are uniform on [m, m + 1), with m of the modules; the reward is the value."""

    def sample(modules: Any, config: Any, space: Any, cond: Any, rng: Rng, index: Any, settings: Any) -> torch.Tensor:
        return (modules["start"] + rng.uniform("x", index)).view(-1, 1, 1)

    return SimpleNamespace(
        family=SimpleNamespace(sampling=SimpleNamespace(sample=sample)),
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
        batch = SelectedBatches(SelectedConfig(samples=N, source="reference"), world(now, 0.0))(0, SIZE)
        best = batch.x.flatten()
        # The greatest of n uniform numbers has mean n / (n + 1) and variance n / ((n + 1)^2 (n + 2)).
        error = math.sqrt(N / ((N + 1) ** 2 * (N + 2)) / SIZE)
        assert abs(float(best.mean()) - N / (N + 1)) < 4 * error
        assert float(best.max()) < 1


def test_the_best_three_of_eight_are_the_greatest_three() -> None:
    config = SelectedConfig(samples=8, keep=3, source="reference")
    batch = SelectedBatches(config, world(0.0, 0.0))(0, 4095)
    assert len(batch.x) == 4095
    # The k-th greatest of n uniform numbers has mean (n + 1 - k) / (n + 1).
    means = batch.x.view(-1, 3).mean(0)
    assert torch.allclose(means, torch.tensor([8.0, 7.0, 6.0]) / 9, atol=4 * 0.16 / math.sqrt(1365))
    with pytest.raises(ValueError, match="keep must be below samples"):
        SelectedConfig(samples=4, keep=4)


def test_of_the_data_the_best_examples_are_learnt_with_their_conditions() -> None:
    w = world(5.0, 5.0)
    w.examples = lambda first, n: (
        torch.arange(first, first + n).float().view(-1, 1, 1) % 100,
        Cond(n, {"label": torch.arange(first, first + n) % 100}, {"label": torch.ones(n, dtype=torch.bool)}),
    )
    batch = SelectedBatches(SelectedConfig(samples=10, keep=2, source="data"), w)(0, 20)
    tens = torch.arange(10)[:, None] * 10
    assert torch.equal(batch.x.flatten(), (tens + torch.tensor([9, 8])).flatten().float())
    assert torch.equal(batch.cond.parts["label"].float(), batch.x.flatten())


def test_of_the_model_it_is_the_best_of_the_best() -> None:
    batch = SelectedBatches(SelectedConfig(samples=N), world(5.0, 0.0))(0, SIZE)
    assert float(batch.x.min()) >= 5


def test_what_the_family_logs_bears_its_name_and_comes_back_to_it() -> None:
    """The kl of a VAE is of its latents: where rewards are watched, kl is the divergence from the reference."""
    updated: list[dict[str, float]] = []

    def loss(modules: Any, batch: Any, player: str, step: int, rng: Any, state: Any) -> Any:
        return torch.tensor(1.0), 2.0, {"loss": torch.tensor(3.0), "kl": torch.tensor(80.0)}

    def update(state: Any, metrics: Any) -> Any:
        updated.append(metrics)
        return state

    inner: Any = SimpleNamespace(averaged=("decoder",), players={"model": ("decoder",)}, loss=loss, update=update)
    watched = SelectedObjective(inner, "vae")
    extras = {"reward": torch.tensor([0.25, 0.5]), "best": torch.tensor([0.5, 1.0])}
    batch = Batch(torch.zeros(2, 1, 1), Cond(2), torch.arange(2), None, extras)
    _, _, metrics = watched.loss({}, batch, "model", 0, None, {})
    assert {k: float(v) for k, v in metrics.items()} == {"reward": 0.75, "best": 1.5, "vae/kl": 80.0}
    assert watched.update({"a": 1}, {"vae/kl": 4.0, "loss": 1.0}) == {"a": 1}
    assert updated == [{"kl": 4.0, "loss": 1.0}]
