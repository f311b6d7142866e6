"""Rejection sampling: of several samples for a request the best is learnt, as data is (RAFT: Dong et al. 2023).

Drawn from the model as it is, the best of the best are learnt, and the reward has no end. Drawn from the reference,
what is learnt is the best of n of it, whose divergence from it is at most log n - (n - 1) / n nats (Beirami et al.
2024, theorem 1), and no further.

It asks nothing of a reward but a number. A GAN loses the quality of its samples by it, whose critic then knows nothing
else; so a family says whether it fits.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Aligner, Batch, Objective, World
from afresh.core.sampled import as_examples


class SelectedConfig(BaseModel):
    """`samples` for each request, of which the best is learnt, of the model as it is (`policy`) or of the `reference`.
    `reuse`: steps that learn from one selection."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    samples: int = Field(4, ge=2, le=1024)
    source: Literal["policy", "reference"] = "policy"
    reuse: int = Field(4, ge=1, le=8)


class Selected:
    """Batches of the best samples (Dong et al. 2023, algorithm 1)."""

    def __init__(self, config: SelectedConfig, world: World) -> None:
        self.config, self.world = config, world
        self.held: tuple[int, Batch, dict[str, torch.Tensor]] | None = None

    def __call__(self, first: int, size: int) -> Batch:
        number = first // size // self.config.reuse
        if self.held is None or self.held[0] != number:
            self.held = (number, *self.made(number, size))
        _, b, extras = self.held
        # Other noise each time: of the training times of a flow, of the latents of a VAE.
        return Batch(b.x, b.cond, torch.arange(first, first + size, device=b.index.device), b.mask, extras)

    @torch.no_grad()
    def made(self, number: int, size: int) -> tuple[Batch, dict[str, torch.Tensor]]:
        w, n = self.world, self.config.samples
        assert w.reward is not None
        device = w.device
        cond = w.requests(number * size, size).repeat(n).to(device)
        index = torch.arange(number * size * n, (number + 1) * size * n, device=device)
        modules = w.modules if self.config.source == "policy" else w.reference
        x = w.family.sample(modules, w.config, w.space, cond, w.rng, index, w.settings)
        reward = w.reward(x, cond).float().to(device).view(size, n)
        best = reward.argmax(1)
        rows = torch.arange(size, device=device) * n + best
        batch = as_examples(w.space, x[rows], cond.select(rows), index[rows])
        return batch, {"reward": reward.mean(1), "best": reward.amax(1)}


class Watched:
    """The family's own objective; what the samples earned is logged beside it."""

    def __init__(self, inner: Objective) -> None:
        self.inner, self.averaged, self.players = inner, inner.averaged, inner.players

    def loss(self, modules: Any, batch: Batch, player: str, step: int, rng: Any, state: Any) -> Any:
        total, weight, metrics = self.inner.loss(modules, batch, player, step, rng, state)
        each = weight / len(batch.x)  # a token's weight, where that is what is counted
        told = {k: each * batch.extras[k].sum() for k in ("reward", "best")}
        return total, weight, {**metrics, **told}

    def update(self, state: Any, metrics: Any) -> Any:
        return self.inner.update(state, metrics)


ALIGNERS = (
    Aligner(
        name="rejection",
        about="the best of several samples is learnt as data is (Dong et al. 2023)",
        config=SelectedConfig,
        needs=("fits",),
        feeds="reward",
        objective=lambda config, about: Watched(about.family.objective(about.config, about.space)),
        batches=Selected,
        reuse=lambda config: config.reuse,
    ),
)
