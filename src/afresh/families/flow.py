"""Flow matching on the straight path between noise and data (Lipman et al. 2023; Liu et al. 2023).

x_t = (1 - t) e + t x with e ~ N(0, I), and the network stands for the velocity v = E[x - e | x_t]. It is
preconditioned as in EDM (Karras et al. 2022, sec. 5), carried over to this path: for data of standard deviation
s the best linear guess of v from x_t is kept outside the network,

    v = (t s^2 - (1 - t)) / d^2 x_t + s / d F(x_t / d, t),    d^2 = (1 - t)^2 + t^2 s^2,

so that F sees inputs and targets of unit variance, and a network that answers zero is already exact for
Gaussian data. The loss is the squared error of F. `precondition=False` gives plain rectified flow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import Batch, Cond, CondSpec, Family, Loss, Modules, Predict, Space, State
from afresh.nets.velocity import Velocity, VelocityShape
from afresh.rng import Rng
from afresh.sampling.coupling import within_class
from afresh.sampling.guidance import classifier_free
from afresh.sampling.ode import SOLVERS, times


class FlowConfig(BaseModel):
    """The network's sizes (nets.velocity.VelocityShape), and the distribution of training times:
    t = sigmoid(N(time_mean, time_std)). `coupling`: noise is paired with data at random, or within each class by
    optimal transport."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    net: Literal["unet", "dit"] = "unet"
    widths: tuple[int, ...] = (64, 128)
    blocks: int = Field(1, ge=1)
    emb: int = 256
    attention: bool = True
    patch: int = Field(1, ge=1)
    precondition: bool = True
    coupling: Literal["independent", "class"] = "independent"
    time_mean: float = 0.0
    time_std: float = Field(1.0, gt=0)


class FlowSettings(BaseModel):
    """How to sample: solver steps, `euler` or `heun`, and the scale of classifier-free guidance."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(20, ge=1, le=1000)
    solver: Literal["euler", "heun"] = "heun"
    guidance: float = Field(1.0, ge=0, le=100)


class FlowObjective:
    """Mean squared error of F over the field, at one random time an example."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("velocity",)}
    averaged = ("velocity",)

    def __init__(self, config: FlowConfig, space: Space) -> None:
        self.config, self.space = config, space

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net = modules["velocity"]
        assert isinstance(net, Velocity)
        t = torch.sigmoid(self.config.time_mean + self.config.time_std * rng.normal("flow/time", batch.index))
        noise = rng.normal("flow/noise", batch.index, self.space.shape)
        if self.config.coupling == "class":
            noise = within_class(batch.x, noise, batch.cond)
        each = matching_error(net, batch.x, noise, t, batch.cond)
        return each.sum(), float(len(each)), {"loss": each.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def matching_error(net: Velocity, x: Tensor, noise: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """Squared error of F averaged over the field, (B,)."""
    a = t.view(-1, *[1] * (x.dim() - 1))
    at = (1 - a) * noise + a * x
    _, c_skip, c_out = net.scales(t, x.dim() - 1)
    target = (x - noise - c_skip * at) / c_out
    return (net.raw(at, t, cond) - target).square().flatten(1).mean(1)


def score(modules: Modules, config: FlowConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus the matching error over eight spread times: higher is likelier, but not a likelihood. (B,)"""
    net = modules["velocity"]
    assert isinstance(net, Velocity)
    total = torch.zeros(len(batch.x), device=batch.x.device)
    for k in range(8):
        t = torch.full((len(batch.x),), (k + 0.5) / 8, device=batch.x.device)
        noise = rng.normal(f"flow/score/{k}", batch.index, space.shape)
        total -= matching_error(net, batch.x, noise, t, batch.cond) / 8
    return total


def predictor(modules: Modules) -> Predict:
    net = modules["velocity"]

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        return net(x, t, cond), state

    return predict


@torch.no_grad()
def sample(
    modules: Modules, config: FlowConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: FlowSettings
) -> Tensor:
    """(n, *space.shape): the flow from rng.normal("sample/noise", index)."""
    noise = rng.normal("sample/noise", index, space.shape)
    predict = classifier_free(predictor(modules), settings.guidance)
    return SOLVERS[settings.solver](predict, noise, cond, times(settings.steps, noise.device))


def accepts(space: Space) -> str | None:
    return None if space.kind == "field" else "flow needs a field of real numbers; tokens go with transformer"


def sizes(space: Space) -> Sequence[FlowConfig]:
    """Widths for the number of times that the grid can be halved down to about 4."""
    side = min(space.shape[1:])
    levels = max(1, min(4, 1 + round(math.log2(max(side, 4) / 5))))
    growth = (1, 2, 3, 4)
    return [
        FlowConfig(widths=tuple(base * g for g in growth[:levels]), blocks=blocks, emb=4 * base)
        for base, blocks in ((32, 1), (48, 1), (64, 1), (96, 2), (128, 2))
    ]


def appetite(parameters: int, space: Space) -> int:
    """One picture for every 25 parameters: a small net needs steps more than it needs width (docs/log.md)."""
    return parameters // 25


def build(config: FlowConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    shape = VelocityShape(**config.model_dump(include={f.name for f in fields(VelocityShape)}))
    return {"velocity": Velocity(shape, space, conds)}


FAMILY = Family(
    name="flow",
    accepts=accepts,
    config=FlowConfig,
    sizes=sizes,
    appetite=appetite,
    batch=lambda examples, space: 64,
    build=build,
    objective=FlowObjective,
    settings=FlowSettings,
    sample=sample,
    recipe={
        "optimizer": "muon",
        "matrix_lr": 0.02,
        "lr": 2e-3,
        "betas": (0.9, 0.99),
        "weight_decay": 0.01,
        "ema_half_life": 20_000,
    },
    score=score,
    regions=lambda modules, device: [modules["velocity"].net],  # type: ignore[list-item]
)
