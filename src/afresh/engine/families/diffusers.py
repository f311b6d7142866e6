"""Networks of diffusers (UNet2DModel, DiTTransformer2DModel) as velocities on the straight path, for fine-tuning.

Their velocity on the straight path is that of nets/foreign.py. Euler's rule on this path equals DDIM (Song et al. 2021,
eq. 12), up to rounding and for any times, as both are exact for constant (x, eps).

`afresh tune FOLDER DATA` creates such runs. The network is the module of diffusers, so that it can be exported to a
folder that diffusers opens. The loss is that of diffusers' training scripts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import (
    Cond,
    CondSpec,
    Evaluations,
    Family,
    Likelihood,
    Modules,
    PlanHints,
    Predict,
    Sampling,
    Space,
    UserError,
)
from afresh.core.rng import Rng
from afresh.engine.nets.foreign import DiffusersObjective, FolderConfig, Foreign, foreign, score
from afresh.engine.sampling.edit import edit_under, stateless
from afresh.engine.sampling.guidance import classifier_free
from afresh.engine.sampling.ode import EVALUATIONS, SOLVERS, times

Architecture = Literal["UNet2DModel", "DiTTransformer2DModel"]


class DiffusersConfig(FolderConfig):
    """The configuration of a network over pixels."""

    architecture: Architecture

    @property
    def clip(self) -> float | None:
        """The bound to which sampling in diffusers clips the predicted clean image; None if it does not clip."""
        return float(self.schedule.get("clip_sample_range", 1.0)) if self.schedule.get("clip_sample", True) else None


class DiffusersSettings(BaseModel):
    """Options of sampling.

    `steps`: number of steps of the `solver`; heun evaluates the network twice in each step, euler (which is DDIM), ab2
    and dpmpp once. `grid`: times evenly spaced in the steps of the base's schedule (schedule), or on the straight path
    (even), as in all edits. `clip`: clip the predicted clean image to the range of the base's scheduler, if it has one.
    `guidance`: scale of classifier-free guidance. `resample`: number of repetitions of each step of an edit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(50, ge=1, le=1000)
    solver: Literal["euler", "heun", "ab2", "dpmpp"] = "euler"
    grid: Literal["schedule", "even"] = "schedule"
    clip: bool = True
    guidance: float = Field(1.0, ge=0, le=100)
    resample: int = Field(4, ge=1, le=100)


# --------------------------------------------------------------------------- sampling


def predictor(modules: Modules, clip: float | None = None) -> Predict:
    """The velocity as a Predict."""
    net = foreign(modules)
    return stateless(lambda x, t, cond: net(x, t, cond, clip))


def grid_of(net: Foreign, settings: DiffusersSettings) -> Tensor:
    """Times from noise to data, (steps + 1,) float64 on the CPU.

    For the grid `schedule`: evenly spaced steps of DDPM from the last ("trailing" in diffusers), followed by t = 1.
    """
    if settings.grid == "even":
        return times(settings.steps)
    ratio = net.get_buffer("ratio").cpu().double()
    count = len(ratio)
    if settings.steps > count:
        raise UserError(f"steps must be at most {count}, the number of steps of the base model, not {settings.steps}.")
    k = (count - torch.arange(settings.steps, dtype=torch.float64) * count / settings.steps).round().long() - 1
    inner = torch.sigmoid(ratio[k] / 2)  # t / (1 - t) = sqrt(abar / (1 - abar))
    return torch.cat([inner, inner.new_ones(1)])


@torch.no_grad()
def sample(
    modules: Modules,
    config: DiffusersConfig,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: DiffusersSettings,
) -> Tensor:
    """Samples (n, *space.shape) from rng.normal("sample/noise", index) at the first of the times, as in diffusers."""
    net = foreign(modules)
    noise = rng.normal("sample/noise", index, space.shape)
    ts = grid_of(net, settings)
    start = noise * float(((1 - ts[0]).square() + ts[0].square()).sqrt())  # unit variance on DDPM's path
    return SOLVERS[settings.solver](guided(modules, config, settings), start, cond, ts)


def guided(modules: Modules, config: DiffusersConfig, settings: DiffusersSettings) -> Predict:
    """The velocity under the settings' guidance. Predictions with and without the condition are clipped alike."""
    return classifier_free(predictor(modules, config.clip if settings.clip else None), settings.guidance)


def evaluations(space: Space, settings: DiffusersSettings) -> int:
    """Of the network for a sample: of both branches of guidance in every step."""
    return settings.steps * EVALUATIONS[settings.solver] * (1 if settings.guidance == 1 else 2)


def accepts(space: Space) -> str | None:
    if space.kind != "field" or len(space.shape) != 3:
        return "networks of diffusers generate images (C, H, W); tokens go with transformer, other fields with flow"
    return None


def sizes(space: Space) -> Sequence[DiffusersConfig]:
    """Always raises UserError: the size is that of the base model."""
    raise UserError("The family diffusers needs a base model, a folder of diffusers: afresh tune FOLDER DATA.")


def build(config: DiffusersConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """Raises UserError for conditions that the network does not support."""
    labels = {k: len(p.classes) for k, p in conds.items() if p.kind == "label"}
    if len(labels) < len(conds) or list(labels.values()) not in ([], [config.classes]):
        raise UserError(f"The base model has {config.classes} classes and no other conditions, not {', '.join(conds)}.")
    return {"velocity": Foreign(config, conds)}


FAMILY = Family(
    name="diffusers",
    accepts=accepts,
    config=DiffusersConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=lambda parameters, space: parameters // 25,
        batch=lambda examples, space: 16,
        recipe=lambda space: {
            "optimizer": "adamw",
            "lr": 1e-4,
            "betas": (0.9, 0.999),
            "weight_decay": 0.01,
            "clip": 1.0,
        },
        tunable=("snr_gamma",),
    ),
    build=build,
    objective=DiffusersObjective,
    sampling=Sampling(DiffusersSettings, sample),
    likelihood=Likelihood(score),
    edit=edit_under(guided),
    evaluations=Evaluations(
        evaluations, lambda space, settings, keep: evaluations(space, settings) * (settings.resample if keep else 1)
    ),
    made_by="tune",
    how="shapes noise step by step",
)
