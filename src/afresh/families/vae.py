"""Variational autoencoder (Kingma and Welling 2014) with a shared, optimal variance (Rybkin et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import Batch, Cond, CondSpec, Family, Loss, Modules, Space, State
from afresh.nets.conditioning import Conditioning
from afresh.nets.conv import Decoder, Encoder
from afresh.rng import Rng

SCALE_RATE = 10.0  # log sigma moves this many learning rates a step


class VAEConfig(BaseModel):
    """`free_bits`: nats a latent dimension may cost for nothing. `beta`: weight of the KL term; 1 = the bound."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=64, ge=8)
    blocks: int = Field(default=1, ge=1)
    most: int = Field(default=4, ge=1)
    latent: int = Field(default=32, ge=1)
    cond: int = Field(default=64, ge=1)
    beta: float = Field(default=1.0, ge=0)
    free_bits: float = Field(default=0.0, ge=0)


class VAESettings(BaseModel):
    """`truncation` scales the latent: 1 = the prior, 0 = its mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    truncation: float = Field(default=1.0, ge=0, le=1)
    guidance: float = 1.0


class Scale(nn.Module):
    """The shared standard deviation of p(x | z), sigma = exp(rate * p)."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(math.log(std) / SCALE_RATE))

    def forward(self) -> Tensor:
        """log sigma, a scalar."""
        return self.exponent * SCALE_RATE


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each dimension, nats (Kingma and Welling 2014, app. B)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


def gaussian_nll(square: Tensor, dims: int, log_sigma: Tensor) -> Tensor:
    """-log N of `dims` values whose squared errors sum to `square` (B,), nats."""
    return 0.5 * square * torch.exp(-2 * log_sigma) + dims * (log_sigma + 0.5 * math.log(2 * math.pi))


def accepts(space: Space) -> str | None:
    if space.kind != "field":
        return "a VAE models real numbers on a grid; for tokens use the transformer"
    if not 2 <= len(space.shape) <= 4:
        return f"a VAE needs (channels, 1 to 3 axes), not shape {space.shape}"
    return None


def sizes(space: Space) -> Sequence[VAEConfig]:
    return [
        VAEConfig(width=32, blocks=1, latent=16, cond=64),
        VAEConfig(width=64, blocks=1, latent=32, cond=128),
        VAEConfig(width=96, blocks=2, latent=64, cond=192),
        VAEConfig(width=128, blocks=3, latent=128, cond=256),
    ]


def appetite(parameters: int, space: Space) -> int:
    """Examples worth showing a network of so many parameters."""
    return 60_000 + parameters // 4


def build(config: VAEConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    c = config
    return {
        "conditioning": Conditioning(conds, c.cond),
        "encoder": Encoder(space.shape, c.cond, c.latent, c.width, c.blocks, c.most),
        "decoder": Decoder(space.shape, c.cond, c.latent, c.width, c.blocks, c.most),
        "scale": Scale(space.std),
    }


def bound(modules: Modules, batch: Batch, rng: Rng, purpose: str) -> tuple[Tensor, Tensor]:
    """One draw of the bound's parts: squared error (B,), and KL of each dimension (B, latent)."""
    c = modules["conditioning"](batch.cond)
    mean, log_var = modules["encoder"](batch.x, c)
    noise = rng.normal(purpose, batch.index, (mean.shape[1],))
    x = modules["decoder"](mean + (0.5 * log_var).exp() * noise, c)
    return (x - batch.x).float().square().flatten(1).sum(1), gaussian_kl(mean, log_var)


class VAEObjective:
    players: Mapping[str, tuple[str, ...]] = {"vae": ("conditioning", "encoder", "decoder", "scale")}
    averaged: tuple[str, ...] = ("conditioning", "encoder", "decoder", "scale")

    def __init__(self, config: VAEConfig, space: Space) -> None:
        self.config, self.dims = config, math.prod(space.shape)

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        square, kl = bound(modules, batch, rng, "vae/latent")
        log_sigma = modules["scale"]()
        nll = gaussian_nll(square, self.dims, log_sigma.detach())
        fit = gaussian_nll(square.detach(), self.dims, log_sigma) / (self.dims * SCALE_RATE)
        paid = kl.clamp_min(self.config.free_bits).sum(1)
        total = (nll + self.config.beta * paid + fit - fit.detach()).sum()
        elbo = -(nll + kl.sum(1)).detach().sum()
        return (
            total,
            float(len(batch.x)),
            {"elbo": elbo, "kl": kl.detach().sum(), "mse": square.detach().sum() / self.dims},
        )

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def sample(
    modules: Modules, config: VAEConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    z = rng.normal("vae/sample", index, (config.latent,)) * settings.truncation
    c = modules["conditioning"](cond)
    if settings.guidance != 1:
        null = modules["conditioning"](cond.null())
        c = null + settings.guidance * (c - null)
    return modules["decoder"](z, c)


def score(modules: Modules, config: VAEConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    square, kl = bound(modules, batch, rng, "vae/score")
    return -gaussian_nll(square, math.prod(space.shape), modules["scale"]()) - kl.sum(1)


def objective(config: Any, space: Space) -> VAEObjective:
    return VAEObjective(config, space)


FAMILY = Family(
    name="vae",
    accepts=accepts,
    config=VAEConfig,
    sizes=sizes,
    appetite=appetite,
    build=build,
    objective=objective,
    settings=VAESettings,
    sample=sample,
    recipe={
        "optimizer": "adamw",
        "lr": 1e-3,
        "betas": (0.9, 0.99),
        "weight_decay": 0.01,
        "batch": 64,
        "warmup": 100,
        "decay": 0.5,
        "ema_half_life": 10_000,
        "clip": 1.0,
    },
    score=score,
)
