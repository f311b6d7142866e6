"""Refinement of what changes: a first guess of the next field, which is noised and denoised again, ever more finely.

PDE-Refiner (Lippe et al. 2023, algorithms 1 and 2). With what was before known and r the change to draw, in units of
its scale, one network has K + 1 tasks: from nothing it predicts r, by the squared error; and from r + s_k e with noise
e of deviation s_k = `least`^(k / K), k = 1 ... K, it predicts e. A sample begins with the prediction, to which noise is
added and taken away K times, s_1 first: what has a small amplitude, such as high wavenumbers, is only seen at low
noise, which has an equal share in the loss. The noise that is drawn makes it an ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import Batch, Cond, CondSpec, Family, Loss, Modules, PlanHints, Sampling, Space, State
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_LAYERS
from afresh.core.space import SERIES
from afresh.engine.nets.conditioning import Conditioning, TimeEmbedding, aligned_channels, aligned_fields, previous
from afresh.engine.nets.dit import DiTBlock
from afresh.engine.nets.resnet import ConvBlock, local_sizes, state_batch, state_examples
from afresh.engine.nets.transformer import layers_of
from afresh.engine.nets.unet import ResBlock
from afresh.engine.nets.velocity import FIELD_RECIPE, VelocityShape, Widths, along, network


class RefinerConfig(BaseModel):
    """Sizes of the network (nets.velocity.VelocityShape), the number of refinements K, and the least deviation of
    noise, in units of what changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    net: Literal["unet", "dit", "resnet"] = "unet"  # a Transformer over patches; convolutions on one grid
    widths: Widths = (64, 128)  # channels of each grid (dit, resnet: one)
    blocks: int = Field(1, ge=1, le=MOST_LAYERS)  # a grid; of dit and resnet layers
    emb: int = Field(256, ge=2)  # width of the vector of the task and the condition
    attention: bool = True  # at the coarsest grid
    patch: int = Field(1, ge=1)  # cells an axis folded into channels
    refinements: int = Field(3, ge=1, le=100)  # K
    least: float = Field(1e-3, gt=0, lt=1)  # deviation of noise

    def deviation(self, task: Tensor) -> Tensor:
        """That of the noise of tasks (B,), numbers from 0 to K; 0 of the first, which sees nothing."""
        return torch.where(task > 0, self.least ** (task / self.refinements), 0.0)


class RefinerSettings(BaseModel):
    """Sampling has no options: the refinements are those of training."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Refining(nn.Module):
    """(noised change (B, C, *grid), task (B,) in 0 ... K, Cond) -> the change, or its noise, of unit scale."""

    def __init__(self, config: RefinerConfig, space: Space, conds: CondSpec) -> None:
        super().__init__()
        shape = VelocityShape.of(config)
        self.conds, self.refinements = conds, config.refinements
        self.time = TimeEmbedding(config.emb)
        self.conditioning = Conditioning(conds, config.emb, aligned=True)
        channels = space.shape[0]
        self.net = network(shape, space, aligned_channels(conds, channels) + channels, channels)

    def forward(self, noised: Tensor, task: Tensor, cond: Cond) -> Tensor:
        e = self.time(task / self.refinements) + self.conditioning(cond)
        seen = torch.cat([aligned_fields(cond, self.conds, noised), noised], 1)
        out: Tensor = self.net(seen, nn.functional.silu(e)).float()
        return out


def refining(modules: Modules) -> Refining:
    """The network of `build`."""
    net = modules["refining"]
    assert isinstance(net, Refining)
    return net


class RefinerObjective:
    """The squared error of the change from nothing, or of its noise, for a task that is drawn for each example."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("refining",)}
    averaged = ("refining",)

    def __init__(self, config: RefinerConfig, space: Space) -> None:
        self.config, self.space = config, space

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net, x = refining(modules), batch.x.float()
        before = previous(batch.cond, net.conds, x)
        change = x if before is None else (x - before[0]) / along(before[1], x)
        count = self.config.refinements + 1
        task = (rng.uniform("refiner/task", batch.index, ()) * count).long().clamp_max(count - 1)
        deviation = along(self.config.deviation(task), x)
        first = along(task == 0, x)
        noise = rng.normal("refiner/noise", batch.index, tuple(x.shape[1:]))
        noised = torch.where(first > 0, torch.zeros_like(x), change + deviation * noise)
        target = torch.where(first > 0, change, noise)
        each = (net(noised, task.float(), batch.cond) - target).square().flatten(1).mean(1)
        return each.sum(), float(len(each)), {"loss": each.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


@torch.no_grad()
def sample(
    modules: Modules,
    config: RefinerConfig,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: RefinerSettings,
) -> Tensor:
    """Samples (n, *space.shape): a prediction that is refined K times, with noise that is keyed by `index`."""
    net = refining(modules)
    x = torch.zeros(len(index), *space.shape, device=index.device)
    task = torch.zeros(len(index), device=index.device)
    change = net(x, task, cond)
    for k in range(1, config.refinements + 1):
        deviation = config.least ** (k / config.refinements)
        noised = change + deviation * rng.normal(f"sample/{k}", index, tuple(space.shape))
        change = noised - deviation * net(noised, task + k, cond)
    before = previous(cond, net.conds, change)
    return change if before is None else before[0] + along(before[1], change) * change


def accepts(space: Space) -> str | None:
    if space.serial:
        return SERIES
    if space.kind != "field":
        return "a refiner draws fields of real numbers; tokens go with transformer"
    if space.pixels or space.timed:
        return "a refiner begins with a prediction of the whole, which images and sounds do not have: take flow"
    return None


def sizes(space: Space) -> Sequence[RefinerConfig]:
    """Networks of five sizes: of a local field on its own grid, otherwise U-Nets of two levels."""
    if space.local:
        return [RefinerConfig(**size) for size in local_sizes(space)]
    return [
        RefinerConfig(widths=(width, 2 * width), blocks=blocks, emb=4 * width)
        for width, blocks in ((16, 1), (32, 1), (48, 1), (64, 1), (96, 2))
    ]


def build(config: RefinerConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    return {"refining": Refining(config, space, conds)}


FAMILY = Family(
    name="refiner",
    accepts=accepts,
    config=RefinerConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=state_examples,
        batch=state_batch,
        recipe=lambda space: {
            **FIELD_RECIPE,
            "ema_half_life": 10_000,
            **({"precision": "float32"} if space.local else {}),  # rollouts add errors up
        },
        blocks=lambda modules: layers_of(modules["refining"], ResBlock, DiTBlock, ConvBlock),
    ),
    build=build,
    objective=RefinerObjective,
    sampling=Sampling(RefinerSettings, sample, guided=False),
    how="draws by refining a prediction",
)
