"""Generative adversarial network: R3GAN (Huang et al. 2024) with differentiable augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.func import functional_call

from afresh.core import Batch, Cond, CondSpec, Family, Loss, Modules, Space, State
from afresh.nets.augment import augment
from afresh.nets.conditioning import Conditioning
from afresh.nets.conv import Critic, Generator
from afresh.rng import Rng


class GANConfig(BaseModel):
    """`gamma`: weight of the gradient penalties R1 and R2. `augment`: probability of each augmentation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=64, ge=8)
    blocks: int = Field(default=1, ge=1)
    most: int = Field(default=4, ge=1)
    group: int = Field(default=0, ge=0)
    latent: int = Field(default=64, ge=1)
    cond: int = Field(default=64, ge=1)
    gamma: float = Field(default=0.5, ge=0)
    augment: float = Field(default=0.5, ge=0, le=1)
    exact: bool = False


class GANSettings(BaseModel):
    """`truncation` scales the latent: 1 = as trained, 0 = its mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    truncation: float = Field(default=1.0, ge=0, le=1)
    guidance: float = 1.0


def accepts(space: Space) -> str | None:
    if space.kind != "field":
        return "a GAN draws real numbers on a grid and needs gradients through them; for tokens use the transformer"
    if not 2 <= len(space.shape) <= 4:
        return f"a GAN needs (channels, 1 to 3 axes), not shape {space.shape}"
    return None


def sizes(space: Space) -> Sequence[GANConfig]:
    return [
        GANConfig(width=32, blocks=1, latent=64, cond=64),
        GANConfig(width=64, blocks=1, latent=64, cond=64),
        GANConfig(width=96, blocks=2, latent=64, cond=96),
        GANConfig(width=128, blocks=2, latent=64, cond=128),
    ]


def appetite(parameters: int, space: Space) -> int:
    """Examples worth showing a network of so many parameters."""
    return 60_000 + parameters // 4


def build(config: GANConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    c = config
    return {
        "generator_conditioning": Conditioning(conds, c.cond),
        "generator": Generator(space.shape, c.cond, c.latent, c.width, c.blocks, c.most, c.group),
        "critic_conditioning": Conditioning(conds, c.cond),
        "critic": Critic(space.shape, c.cond, c.width, c.blocks, c.most, c.group),
    }


def frozen(module: nn.Module, *args: Any) -> Tensor:
    """The module's output with its weights held constant: no gradient is computed for them."""
    return functional_call(module, {k: v.detach() for k, v in module.named_parameters()}, args)


def gradient_penalty(scores: Tensor, x: Tensor) -> Tensor:
    """|d score / d x|^2 of each example, (B,)."""
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


class GANObjective:
    players: Mapping[str, tuple[str, ...]] = {
        "critic": ("critic", "critic_conditioning"),
        "generator": ("generator", "generator_conditioning"),
    }
    averaged: tuple[str, ...] = ("generator", "generator_conditioning")

    def __init__(self, config: GANConfig, space: Space) -> None:
        self.config = config

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        z = rng.normal(f"gan/{player}", batch.index, (self.config.latent,))
        if player == "critic":
            return self.critic(modules, batch, z, rng)
        return self.generator(modules, batch, z, rng)

    def pair(self, batch: Batch, fake: Tensor, rng: Rng, player: str) -> Tensor:
        """Real then made fields, augmented, (2 B, C, *grid)."""
        p = self.config.augment
        real = augment(batch.x.float(), rng, batch.index, f"gan/{player}/real", p)
        return torch.cat([real, augment(fake, rng, batch.index, f"gan/{player}/fake", p)])

    def critic(self, modules: Modules, batch: Batch, z: Tensor, rng: Rng) -> Loss:
        with torch.no_grad():
            fake = modules["generator"](z, modules["generator_conditioning"](batch.cond))
            x = self.pair(batch, fake, rng, "critic")
        x.requires_grad_(True)
        with torch.autocast(
            x.device.type,
            enabled=not self.config.exact and torch.is_autocast_enabled(x.device.type),
            dtype=torch.get_autocast_dtype(x.device.type),
        ):
            c = modules["critic_conditioning"](batch.cond)
            scores = modules["critic"](x, torch.cat([c, c]))
            penalty = gradient_penalty(scores, x)
        real, made = scores.chunk(2)
        r1, r2 = penalty.chunk(2)
        total = F.softplus(made - real) + 0.5 * self.config.gamma * (r1 + r2)
        metrics = {"critic": F.softplus(made - real), "r1": r1, "r2": r2, "ahead": (real > made).float()}
        return total.sum(), float(len(batch.x)), {k: v.detach().sum() for k, v in metrics.items()}

    def generator(self, modules: Modules, batch: Batch, z: Tensor, rng: Rng) -> Loss:
        fake = modules["generator"](z, modules["generator_conditioning"](batch.cond))
        with torch.no_grad():
            c = modules["critic_conditioning"](batch.cond)
        real, made = frozen(modules["critic"], self.pair(batch, fake, rng, "generator"), torch.cat([c, c])).chunk(2)
        total = F.softplus(real - made).sum()
        return total, float(len(batch.x)), {"generator": total.detach()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def sample(
    modules: Modules, config: GANConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: GANSettings
) -> Tensor:
    z = rng.normal("gan/sample", index, (config.latent,)) * settings.truncation
    c = modules["generator_conditioning"](cond)
    if settings.guidance != 1:
        null = modules["generator_conditioning"](cond.null())
        c = null + settings.guidance * (c - null)
    return modules["generator"](z, c)


def objective(config: Any, space: Space) -> GANObjective:
    return GANObjective(config, space)


FAMILY = Family(
    name="gan",
    accepts=accepts,
    config=GANConfig,
    sizes=sizes,
    appetite=appetite,
    build=build,
    objective=objective,
    settings=GANSettings,
    sample=sample,
    recipe={
        "optimizer": "adamw",
        "lr": 1e-3,
        "betas": (0.0, 0.9),
        "weight_decay": 0.0,
        "batch": 64,
        "warmup": 0,
        "decay": 0.5,
        "ema_half_life": 10_000,
        "clip": 0.0,
    },
)
