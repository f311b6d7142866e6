"""Rejection sampling: of several samples for a request the best are learnt, as data is (RAFT: Dong et al. 2023).

Drawn from the model as it is, the best of the best are learnt, and the reward has no end. Drawn from the reference,
what is learnt is the best of n of it, whose divergence from it is at most log n - (n - 1) / n nats (Beirami et al.
2024, theorem 1), and no further. With the best k of n it is at most log(n / k), since what is learnt is nowhere n / k
times as likely as in the reference: what differs less than that is kept as varied as it was.

Drawn from the data instead, nothing is sampled at all, and the samples' own faults are not learnt: the model goes on
learning its data, the best part of it. The best of n are then of any conditions, so that what is learnt under each is
better by one rule.

It asks nothing of a reward but a number. A GAN loses the quality of its samples by it, whose critic then knows nothing
else; so a family says whether it fits.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from afresh.core import AlignContext, Aligner, Batch, Cond, Objective
from afresh.core.sampled import as_examples


class SelectedConfig(BaseModel):
    """`samples` for each request, of which the best `keep` are learnt. `source` of these: the model as it is (policy),
    the reference, or the data. `reuse`: steps that learn from one selection."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    samples: int = Field(4, ge=2, le=1024)
    keep: int = Field(1, ge=1, le=1023)
    source: Literal["policy", "reference", "data"] = "policy"
    reuse: int = Field(4, ge=1, le=8)

    @model_validator(mode="after")
    def check(self) -> SelectedConfig:
        if self.keep >= self.samples:
            raise ValueError(
                f"keep {self.keep} of samples {self.samples} leaves nothing out: give fewer, or more samples"
            )
        return self


class Selected:
    """Batches of the best samples (Dong et al. 2023, algorithm 1)."""

    def __init__(self, config: SelectedConfig, context: AlignContext) -> None:
        self.config, self.context = config, context
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
        w, n, keep = self.context, self.config.samples, self.config.keep
        assert w.reward is not None
        device, asked = w.device, size // keep
        index = torch.arange(number * asked * n, (number + 1) * asked * n, device=device)
        x, cond = self.candidates(number * asked, asked, index)
        reward = w.reward(x, cond).float().to(device).view(asked, n)
        best, at = reward.topk(keep, 1)
        rows = (torch.arange(asked, device=device)[:, None] * n + at).flatten()
        batch = as_examples(w.space, x[rows], cond.select(rows), index[rows])
        return batch, {"reward": reward.mean(1).repeat_interleave(keep), "best": best.flatten()}

    def candidates(self, first: int, asked: int, index: torch.Tensor) -> tuple[torch.Tensor, Cond]:
        """`samples` for each of the requests number first ... first + asked - 1, one after the other."""
        w, n = self.context, self.config.samples
        if self.config.source == "data":
            assert w.examples is not None
            x, cond = w.examples(first * n, asked * n)
            return x.to(w.device), cond.to(w.device)
        cond = w.requests(first, asked).repeat(n).to(w.device)
        modules = w.modules if self.config.source == "policy" else w.reference
        return w.family.sampling.sample(modules, w.config, w.space, cond, w.rng, index, w.settings), cond


class Watched:
    """The family's own objective; what the samples earned is logged before what it logs, which gets the family's name:
    the `kl` of a VAE is of its latents, and no divergence from the reference."""

    def __init__(self, inner: Objective, name: str) -> None:
        self.inner, self.averaged, self.players, self.mark = inner, inner.averaged, inner.players, f"{name}/"

    def loss(self, modules: Any, batch: Batch, player: str, step: int, rng: Any, state: Any) -> Any:
        total, weight, metrics = self.inner.loss(modules, batch, player, step, rng, state)
        each = weight / len(batch.x)  # a token's weight, where that is what is counted
        told = {k: each * batch.extras[k].sum() for k in ("reward", "best")}
        return total, weight, {**told, **{f"{self.mark}{k}": v for k, v in metrics.items() if k != "loss"}}

    def update(self, state: Any, metrics: Any) -> Any:
        return self.inner.update(state, {k.replace(self.mark, ""): v for k, v in metrics.items()})


ALIGNERS = (
    Aligner(
        name="rejection",
        about="the best of several samples are learnt as data is (Dong et al. 2023)",
        config=SelectedConfig,
        needs=("fits",),
        feeds="reward",
        objective=lambda config, about: Watched(about.family.objective(about.config, about.space), about.family.name),
        batches=Selected,
        reuse=lambda config: config.reuse,
        group=lambda config: config.keep,
    ),
)
