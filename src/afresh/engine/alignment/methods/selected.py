"""Rejection sampling: the best of several samples for each request are used as training data (RAFT: Dong et al. 2023).

With samples of the current model, selection is repeated on its own results and the reward grows without a limit. With
samples of the reference, the target is the best of n of the reference, whose divergence from it is at most
log n - (n - 1) / n nats (Beirami et al. 2024, theorem 1). For the best k of n the divergence is at most log(n / k),
because no sample is more than n / k times as probable as under the reference.

With training examples instead of samples, the model continues to learn the best part of its data, and the errors of
samples are not learnt. The n examples then have any conditions, so that the same standard applies to all of them.

The method needs only the values of a reward. It degrades the samples of a GAN, whose discriminator then only sees
selected samples; families therefore state whether they support it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from afresh.core import AlignContext, Aligner, Batch, Cond, Objective, Space


class SelectedConfig(BaseModel):
    """`samples`: drawn for each request, of which the best `keep` are learnt. `source`: where they come from, the
    current model (policy), the reference, or the data. `reuse`: steps that use one selection."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    samples: int = Field(4, ge=2, le=1024)
    keep: int = Field(1, ge=1, le=1023)
    source: Literal["policy", "reference", "data"] = "policy"
    reuse: int = Field(4, ge=1, le=8)

    @model_validator(mode="after")
    def check(self) -> SelectedConfig:
        if self.keep >= self.samples:
            raise ValueError(
                f"keep must be below samples, so that some are rejected. Given: keep {self.keep}, samples "
                f"{self.samples}"
            )
        return self


class SelectedBatches:
    """Batches of the best samples (Dong et al. 2023, algorithm 1)."""

    def __init__(self, config: SelectedConfig, context: AlignContext) -> None:
        self.config, self.context = config, context
        self.held: tuple[int, Batch, dict[str, torch.Tensor]] | None = None

    def __call__(self, first: int, size: int) -> Batch:
        number = first // size // self.config.reuse
        if self.held is None or self.held[0] != number:
            self.held = (number, *self.select(number, size))
        _, b, extras = self.held
        # New indices give new noise for each use, such as the times of a flow or the latents of a VAE.
        return Batch(b.x, b.cond, torch.arange(first, first + size, device=b.index.device), b.mask, extras)

    @torch.no_grad()
    def select(self, number: int, size: int) -> tuple[Batch, dict[str, torch.Tensor]]:
        w, n, keep = self.context, self.config.samples, self.config.keep
        assert w.reward is not None
        device, count = w.device, size // keep
        index = torch.arange(number * count * n, (number + 1) * count * n, device=device)
        x, cond = self.candidates(number * count, count, index)
        reward = w.reward(x, cond).float().to(device).view(count, n)
        best, position = reward.topk(keep, 1)
        rows = (torch.arange(count, device=device)[:, None] * n + position).flatten()
        batch = as_examples(w.space, x[rows], cond.select(rows), index[rows])
        return batch, {"reward": reward.mean(1).repeat_interleave(keep), "best": best.flatten()}

    def candidates(self, first: int, count: int, index: torch.Tensor) -> tuple[torch.Tensor, Cond]:
        """`samples` samples for each of the requests first ... first + count - 1, in their order."""
        w, n = self.context, self.config.samples
        if self.config.source == "data":
            assert w.examples is not None
            x, cond = w.examples(first * n, count * n)
            return x.to(w.device), cond.to(w.device)
        cond = w.requests(first, count).repeat(n).to(w.device)
        modules = w.modules if self.config.source == "policy" else w.reference
        x = w.family.sampling.sample(modules, w.config, w.space, cond, w.rng, index, w.settings)
        return x.to(w.device), cond  # tokens are drawn into the memory of the CPU


class SelectedObjective:
    """The family's own objective, which also logs the rewards of samples.

    The metrics of the family get its name as a prefix, because they may have another meaning: the `kl` of a VAE is that
    of its latents, not the divergence from the reference.
    """

    def __init__(self, inner: Objective, name: str) -> None:
        self.inner, self.averaged, self.players, self.mark = inner, inner.averaged, inner.players, f"{name}/"

    def loss(self, modules: Any, batch: Batch, player: str, step: int, rng: Any, state: Any) -> Any:
        total, weight, metrics = self.inner.loss(modules, batch, player, step, rng, state)
        each = weight / len(batch.x)  # of a sample; the weight counts tokens for some families
        rewards = {k: each * batch.extras[k].sum() for k in ("reward", "best")}
        return total, weight, {**rewards, **{f"{self.mark}{k}": v for k, v in metrics.items() if k != "loss"}}

    def update(self, state: Any, metrics: Any) -> Any:
        return self.inner.update(state, {k.replace(self.mark, ""): v for k, v in metrics.items()})


def as_examples(space: Space, x: Tensor, cond: Cond, index: Tensor) -> Batch:
    """The batch of training that corresponds to samples x of a family's `sample` under `cond`.

    Fields are unchanged. Tokens are preceded by the token of context and by the prompt, which is not counted by the
    mask. The `end` that pads shorter texts is counted once, where it ends a text.
    """
    if space.kind == "field":
        return Batch(x, cond, index)
    begin = space.context_token
    if not space.stream:
        tokens = torch.cat([torch.full_like(x[:, :1], begin), x], 1)
        return Batch(tokens, cond, index, torch.ones_like(x, dtype=torch.bool))
    prompts = x.new_zeros(len(x), 0) if cond.known is None else cond.known
    known = torch.ones_like(prompts, dtype=torch.bool) if cond.known_mask is None else cond.known_mask
    context, end = [begin] if cond.known is None else space.lead, space.special["end"]
    rows, counts = [], []
    for prompt, is_known, new in zip(prompts, known, x, strict=True):
        prefix = [*context, *prompt[is_known].tolist()]
        text = new.tolist()
        while text and text[-1] == end:
            text.pop()
        ended = len(text) < x.shape[1]
        rows.append([*prefix, *text, *([end] if ended else [])])
        counts.append((len(prefix) - 1, len(rows[-1]) - 1))
    width = max(map(len, rows))
    tokens = torch.tensor([[*r, *[end] * (width - len(r))] for r in rows], device=x.device)
    place = torch.arange(width - 1, device=x.device)
    first, last = (torch.tensor(v, device=x.device)[:, None] for v in zip(*counts, strict=True))
    return Batch(tokens, cond, index, (place >= first) & (place < last))


ALIGNERS = (
    Aligner(
        name="rejection",
        about="the best of several samples are used as training data (Dong et al. 2023)",
        config=SelectedConfig,
        needs=("fits",),
        feeds="reward",
        objective=lambda config, about: SelectedObjective(
            about.family.objective(about.config, about.space), about.family.name
        ),
        batches=SelectedBatches,
        reuse=lambda config: config.reuse,
        group=lambda config: config.keep,
    ),
)
