"""The gradient of the reward through the sample (DRaFT: Clark et al. 2024; AlignProp: Prabhudesai et al. 2023).

For rewards that are differentiable functions of the field, and families whose samples are differentiable functions of
their weights: GANs and VAEs sample in one step, and for flows the last steps are differentiated. The objective of a
sample x is r(x) - near |x - x_ref|^2 / std^2, the mean over the field, where x_ref is the reference's sample from the
same noise. `near` is controlled so that the distance becomes the one that is asked for (distance.py), or is set by
hand.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import AlignContext, Aligner, AlignTarget, Batch, Loss, Modules, State, UserError
from afresh.core.rng import Rng
from afresh.engine.alignment.methods.distance import allow, constant, controlled, corrected, unit, weight


class GradientConfig(BaseModel):
    """`distance`: how far samples may go from those of the reference from the same noise, as the mean square of the
    difference in variances of the data, which is about 2 for independent samples. `near`: a constant weight of that
    distance instead, in the unit of the reward."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    distance: float = Field(0.2, gt=0)
    near: float | None = Field(None, ge=0)


class GradientObjective:
    """The mean of the negative reward and the weighted distance (Clark et al. 2024, eq. 3; Prabhudesai et al. 2023)."""

    def __init__(self, config: GradientConfig, about: AlignTarget) -> None:
        self.config, self.about, self.policy = config, about, about.policy
        self.averaged = about.policy.moves
        self.players: Mapping[str, tuple[str, ...]] = {"policy": about.policy.moves}

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        a = self.about
        assert self.policy.draw is not None and a.on_field is not None
        x = self.policy.draw(modules, a.config, a.space, batch.cond, rng, batch.index, a.settings)
        with torch.autocast(x.device.type, enabled=False):  # rewards are computed in float32
            reward = a.on_field(x.float())
        away = (x - batch.x).square().flatten(1).mean(1) / a.space.std**2
        losses = -reward / unit(state) + weight(state) * away
        metrics = {"reward": reward, "reward2": reward.square(), "distance_from_base": away}
        return losses.sum(), float(len(losses)), {k: v.detach().sum() for k, v in metrics.items()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        """Correct the weight by the distance of the samples, unless it was set by hand."""
        if self.config.near is not None:
            return state
        return corrected(state, self.config.distance, metrics["distance_from_base"])


class RequestBatches:
    """Batches of requests, whose x are the reference's samples for them."""

    def __init__(self, config: GradientConfig, context: AlignContext) -> None:
        if context.on_field is None:
            raise UserError(
                "draft needs a model without a codec and a reward that is a differentiable function of its samples "
                "(class:LABEL, a reward model, brightness of images). Other methods: nft (flow), rejection (flow, vae)."
            )
        self.config, self.context = config, context

    @torch.no_grad()
    def __call__(self, first: int, size: int) -> Batch:
        w = self.context
        device = w.device
        index, cond = torch.arange(first, first + size, device=device), w.requests(first, size).to(device)
        x = w.family.sampling.sample(w.reference, w.config, w.space, cond, w.noise, index, w.settings)
        if self.config.near is None and w.on_field is not None:
            allow(w.state(), self.config.distance, w.share(first // size + 1), w.on_field(x.float()))
        return Batch(x, cond, index)


def initial_state(config: GradientConfig) -> State:
    return controlled() if config.near is None else constant(config.near)


ALIGNERS = (
    Aligner(
        name="draft",
        about="the reward's gradient through the sample (Clark et al. 2024)",
        config=GradientConfig,
        needs=("draw",),
        feeds="gradient",
        objective=GradientObjective,
        batches=RequestBatches,
        first=initial_state,
    ),
)
