"""Conditional variational autoencoder with one optimal variance.

Kingma and Welling 2014; the prior of the latent is a normal that follows the condition (Sohn et al. 2015, "Learning
structured output representation using deep conditional generative models"); the variance is Rybkin et al. 2021's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import Batch, Cond, CondSpec, Family, Loss, Modules, Space, State
from afresh.nets.conditioning import Conditioning
from afresh.nets.conv import Decoder, Encoder, start
from afresh.rng import Rng

SCALE_RATE = 10.0  # log sigma moves this many times farther in a step than another weight


class VAEConfig(BaseModel):
    """Sizes of both networks, and the bound's settings.

    `width`: channels of the finest grid, doubled with each halving up to `most` times. `beta`: weight of the KL term
    (Higgins et al. 2017); 1 = the bound. `free_bits`: nats that each dimension of the latent may cost an example for
    nothing (Kingma et al. 2016, app. C.8; there the mean over a batch, here each example, so that a batch can be
    divided).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=1, ge=1)
    most: int = Field(default=4, ge=1)
    latent: int = Field(default=32, ge=1)
    cond: int = Field(default=64, ge=1)
    beta: float = Field(default=1.0, ge=0)
    free_bits: float = Field(default=0.0, ge=0)


class VAESettings(BaseModel):
    """`truncation` scales the latent's noise (1 = the prior, 0 = its mean): lower is more typical and less varied.

    `guidance` g moves the decoder's condition vector from the learned null c0 to c0 + g (c - c0): 1 = as trained.
    More makes labels surer and samples less varied; beyond 3 little variety is left, so more is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    truncation: float = Field(default=1.0, ge=0, le=1)
    guidance: float = Field(default=1.0, ge=0, le=3)


class Scale(nn.Module):
    """The standard deviation of p(x | z), one for all values: sigma = exp(rate * exponent).

    Rybkin et al. 2021 ("Simple and effective VAE training with calibrated decoders", sec. 4) set sigma^2 to the mean
    squared error of each batch, where the likelihood is greatest. That changes with how a batch is divided, so here
    sigma is a weight with a gradient of its own, which comes to rest at the same optimum; it is averaged, saved and
    used for scores like any other weight.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(math.log(std) / SCALE_RATE))

    def forward(self) -> Tensor:
        """log sigma, a scalar."""
        return self.exponent * SCALE_RATE


class Prior(nn.Module):
    """c (B, cond) -> (mean, log variance) of p(z | c), (B, latent) each, float32. Starts as N(0, 1).

    With a fixed prior, nothing keeps the encoder from writing the class into z, which sampling then draws at odds
    with the class asked for: on 28x28 clothes half of the labels came out wrong.
    """

    def __init__(self, cond: int, latent: int) -> None:
        super().__init__()
        self.last = start(nn.Linear(cond, 2 * latent), 0)

    def forward(self, c: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.last(c).float().chunk(2, 1)
        return mean, log_var


def gaussian_kl(mean: Tensor, log_var: Tensor, to_mean: Tensor, to_log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(to_mean, exp(to_log_var))) of each dimension, nats."""
    ratio = (log_var - to_log_var).exp()
    return 0.5 * (ratio + (mean - to_mean).square() * (-to_log_var).exp() - 1 - log_var + to_log_var)


def gaussian_nll(square: Tensor, dims: int, log_sigma: Tensor) -> Tensor:
    """-log N of `dims` values whose squared errors sum to `square` (B,), nats."""
    return 0.5 * square * torch.exp(-2 * log_sigma) + dims * (log_sigma + 0.5 * math.log(2 * math.pi))


def accepts(space: Space) -> str | None:
    if space.kind != "field":
        return "a VAE models a field of real numbers; tokens go with transformer"
    if not 2 <= len(space.shape) <= 4:
        return f"a VAE models channels over 1 to 3 axes; the shape here is {space.shape}"
    return None


def sizes(space: Space) -> Sequence[VAEConfig]:
    return [
        VAEConfig(width=16, latent=16),
        VAEConfig(width=32, latent=16),
        VAEConfig(width=64, latent=32, cond=128),
        VAEConfig(width=96, blocks=2, latent=64, cond=128),
        VAEConfig(width=128, blocks=3, latent=128, cond=256),
    ]


def appetite(parameters: int, space: Space) -> int:
    """One example for every 4 parameters (32 wide on 8x8 digits: 85,000, where samples are first good)."""
    return parameters // 4


def build(config: VAEConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    c = config
    return {
        "conditioning": Conditioning(conds, c.cond),
        "encoder": Encoder(space.shape, c.cond, c.latent, c.width, c.blocks, c.most),
        "decoder": Decoder(space.shape, c.cond, c.latent, c.width, c.blocks, c.most),
        "prior": Prior(c.cond, c.latent),
        "scale": Scale(space.std),
    }


def regions(modules: Modules, device: str) -> Sequence[nn.Module]:
    return [modules["encoder"], modules["decoder"]]


def bound(modules: Modules, batch: Batch, rng: Rng, purpose: str) -> tuple[Tensor, Tensor]:
    """One draw of the bound's parts: squared error (B,), and KL of each dimension (B, latent)."""
    c = modules["conditioning"](batch.cond)
    mean, log_var = modules["encoder"](batch.x, c)
    noise = rng.normal(purpose, batch.index, (mean.shape[1],))
    x = modules["decoder"](mean + (0.5 * log_var).exp() * noise, c)
    return (x - batch.x.float()).square().flatten(1).sum(1), gaussian_kl(mean, log_var, *modules["prior"](c))


class VAEObjective:
    """-ELBO = -log p(x | z) + beta KL(q(z | x, c) || p(z | c)), nats an example, by one draw of z.

    sigma's gradient is apart from the networks' and divided by the field's size: else it would drown theirs where
    gradients are clipped. The loss has the bound's exact value all the same.
    """

    players: Mapping[str, tuple[str, ...]] = {"model": ("conditioning", "encoder", "decoder", "prior", "scale")}
    averaged = ("conditioning", "encoder", "decoder", "prior", "scale")

    def __init__(self, config: VAEConfig, space: Space) -> None:
        self.config, self.dims = config, math.prod(space.shape)

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        square, kl = bound(modules, batch, rng, "vae/latent")
        log_sigma = modules["scale"]()
        nll = gaussian_nll(square, self.dims, log_sigma.detach())  # moves the networks
        fit = gaussian_nll(square.detach(), self.dims, log_sigma) / (self.dims * SCALE_RATE)  # moves sigma
        paid = kl.clamp_min(self.config.free_bits).sum(1)
        total = nll + self.config.beta * paid + (fit - fit.detach())
        metrics = {"loss": nll + kl.sum(1), "kl": kl.sum(1), "mse": square / self.dims}
        return total.sum(), float(len(total)), {k: v.detach().sum() for k, v in metrics.items()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


@torch.no_grad()
def sample(
    modules: Modules, config: VAEConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """The decoder's mean, (n, *space.shape), of latents drawn from the prior.

    Guidance stays out of the prior: there, for the same labels right, it costs more variety.
    """
    noise = rng.normal("sample/noise", index, (config.latent,)) * settings.truncation
    c = modules["conditioning"](cond)
    mean, log_var = modules["prior"](c)
    z = mean + (0.5 * log_var).exp() * noise
    if settings.guidance != 1:
        null = modules["conditioning"](cond.null())
        c = null + settings.guidance * (c - null)
    return modules["decoder"](z, c)


@torch.no_grad()
def score(modules: Modules, config: VAEConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """The bound on log p(x | condition) by one draw of z, (B,) nats."""
    square, kl = bound(modules, batch, rng, "vae/score")
    return -gaussian_nll(square, math.prod(space.shape), modules["scale"]()) - kl.sum(1)


FAMILY = Family(
    name="vae",
    accepts=accepts,
    config=VAEConfig,
    sizes=sizes,
    appetite=appetite,
    batch=lambda examples, space: 64,
    build=build,
    objective=VAEObjective,
    settings=VAESettings,
    sample=sample,
    recipe={
        "optimizer": "adamw",
        "lr": 1e-3,
        "betas": (0.9, 0.99),
        "weight_decay": 0.01,
        "warmup": 100,
        "decay": 0.5,
        "ema_half_life": 10_000,
        "clip": 1.0,
    },
    regions=regions,
    score=score,
)
