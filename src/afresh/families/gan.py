"""Generative adversarial network: R3GAN (Huang et al. 2024) with differentiable augmentation that adapts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Edit,
    Family,
    Latents,
    Loss,
    Modules,
    PlanHints,
    Policy,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.rng import Rng
from afresh.nets.augment import augment
from afresh.nets.conditioning import Conditioning
from afresh.nets.conv import Critic, Generator
from afresh.nets.critic import gradient_penalty
from afresh.sampling.search import search

CONTROL = 0.005  # how fast augmentation answers, a step
NEAR, SEARCH = 0.1, 150  # how near a picture is to be met, in standard deviations of the data; steps of a search


class GANConfig(BaseModel):
    """Sizes of both networks, and the game's settings.

    `width`: channels of the finest grid, doubled with each halving up to `most` times. `group`: channels in a group
    of the middle convolutions, 0 = ungrouped (faster on CPUs). `gamma`: weight of the gradient penalties. `augment`:
    probability of each augmentation at the start. `ahead`: share of pairs that the critic may order rightly before
    augmentation grows; 0 keeps it fixed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=1, ge=1)
    most: int = Field(default=4, ge=1)
    group: int = Field(default=0, ge=0)
    latent: int = Field(default=64, ge=1)
    cond: int = Field(default=64, ge=1)
    gamma: float = Field(default=1.0, ge=0)
    augment: float = Field(default=0.0, ge=0, le=1)
    ahead: float = Field(default=0.9, ge=0, le=1)


class GANSettings(BaseModel):
    """`truncation` scales the latent (1 = as trained, 0 = its mean): lower is more typical and less varied.

    `guidance` g moves the condition's vector from the learned null c0 to c0 + g (c - c0): 1 = as trained.
    More makes labels surer and samples less varied; beyond 3 little variety is left, so more is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    truncation: float = Field(default=1.0, ge=0, le=1)
    guidance: float = Field(default=1.0, ge=0, le=3)


def accepts(space: Space) -> str | None:
    if space.kind != "field":
        return "a GAN needs gradients through what it draws, a field of real numbers; tokens go with transformer"
    if not 2 <= len(space.shape) <= 4:
        return f"a GAN draws channels over 1 to 3 axes; the shape here is {space.shape}"
    return None


def sizes(space: Space) -> Sequence[GANConfig]:
    return [
        GANConfig(width=16),
        GANConfig(width=32),
        GANConfig(width=64, cond=128),
        GANConfig(width=96, blocks=2, cond=128),
        GANConfig(width=128, blocks=3, cond=128),
    ]


def examples_wanted(parameters: int, space: Space) -> int:
    """One example for every 6 parameters (32 wide on 8x8 digits: 53,000, where samples are first good)."""
    return parameters // 6


def build(config: GANConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    c = config
    return {
        "generator_conditioning": Conditioning(conds, c.cond),
        "generator": Generator(space.shape, c.cond, c.latent, c.width, c.blocks, c.most, c.group),
        "critic_conditioning": Conditioning(conds, c.cond),
        "critic": Critic(space.shape, c.cond, c.width, c.blocks, c.most, c.group),
    }


class GANObjective:
    """min_G max_D E[f(D(made) - D(real))], f(t) = -softplus(t), with R1 and R2 on the critic.

    Huang et al. 2024, sec. 2: relativistic pairing, and zero-centred gradient penalties gamma / 2 |dD/dx|^2 on real
    and on made data. Both of a pair answer the same condition, the null included. The penalties are taken at the
    critic's input, after augmentation, which is where the critic must be smooth. That input is a float32 leaf; the
    products inside may be bfloat16 (measured: a penalty errs by 0.4%, its gradient's direction not at all).
    """

    players: Mapping[str, tuple[str, ...]] = {
        "critic": ("critic", "critic_conditioning"),
        "generator": ("generator", "generator_conditioning"),
    }
    averaged = ("generator", "generator_conditioning")

    def __init__(self, config: GANConfig, space: Space) -> None:
        self.config = config

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        z = rng.normal(f"gan/{player}", batch.index, (self.config.latent,))
        if player == "critic":
            return self.critic(modules, batch, z, rng, self.strength(state))
        return self.generator(modules, batch, z, rng, self.strength(state))

    def strength(self, state: State) -> float:
        """Probability of each augmentation now."""
        return float(state["augment"]) if "augment" in state else self.config.augment

    def critic(self, modules: Modules, batch: Batch, z: Tensor, rng: Rng, p: float) -> Loss:
        with torch.no_grad():
            made = modules["generator"](z, modules["generator_conditioning"](batch.cond))
            real = augment(batch.x.float(), rng, batch.index, "gan/critic/real", p)
            x = torch.cat([real, augment(made, rng, batch.index, "gan/critic/made", p)])  # (2 B, C, *grid)
        x.requires_grad_(True)
        c = modules["critic_conditioning"](batch.cond)
        scores = modules["critic"](x, torch.cat([c, c]))
        r1, r2 = gradient_penalty(scores, x).chunk(2)
        on_real, on_made = scores.chunk(2)
        pairing = F.softplus(on_made - on_real)
        total = pairing + 0.5 * self.config.gamma * (r1 + r2)
        metrics = {"loss": pairing, "r1": r1, "r2": r2, "ahead": (on_real > on_made).float()}
        sums = {k: v.detach().sum() for k, v in metrics.items()}
        return total.sum(), float(len(z)), sums | {"augment": torch.tensor(p * len(z))}

    def generator(self, modules: Modules, batch: Batch, z: Tensor, rng: Rng, p: float) -> Loss:
        critic, c = modules["critic"], modules["critic_conditioning"](batch.cond)
        with torch.no_grad():
            on_real = critic(augment(batch.x.float(), rng, batch.index, "gan/generator/real", p), c)
        made = modules["generator"](z, modules["generator_conditioning"](batch.cond))
        on_made = critic(augment(made, rng, batch.index, "gan/generator/made", p), c)
        total = F.softplus(on_real - on_made).sum()
        return total, float(len(z)), {"pairing": total.detach()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        """Augment more while the critic orders more than `ahead` of the pairs rightly, less while fewer.

        The sign heuristic of Karras et al. 2020 ("Training generative adversarial networks with limited data",
        eq. 1; their target 0.6 is 2 ahead - 1), taken on pairs, as a proportional control. Ours is set higher: on
        digits, samples still got better in every respect when the critic was right about 88% of the pairs.
        """
        if not self.config.ahead:
            return state
        p = self.strength(state) + CONTROL * (metrics["critic/ahead"] - self.config.ahead)
        return {**state, "augment": torch.tensor(min(1.0, max(0.0, p)))}


def asked(modules: Modules, cond: Cond, guidance: float) -> Tensor:
    """The condition's vector, (B, cond)."""
    c = modules["generator_conditioning"](cond)
    if guidance == 1:
        return c
    null = modules["generator_conditioning"](cond.null())
    return null + guidance * (c - null)


def draw(
    modules: Modules, config: GANConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: GANSettings
) -> Tensor:
    """(n, *space.shape), from latents keyed by `index`; differentiable in the weights."""
    z = rng.normal("sample/noise", index, (config.latent,)) * settings.truncation
    return modules["generator"](z, asked(modules, cond, settings.guidance))


sample = torch.no_grad()(draw)


@torch.no_grad()
def encode(modules: Modules, config: GANConfig, space: Space, x: Tensor, cond: Cond, settings: GANSettings) -> Tensor:
    """The z (B, latent) found for x, from the mean on: a GAN has no way back, so it is searched for.

    Least of |x - G(z)|^2 / (2 NEAR^2 std^2) + |z|^2 / 2 (Bora et al. 2017). What the generator never draws is not met.
    """
    return found(modules, x, None, x.new_zeros(len(x), config.latent), cond, space, settings)


def found(
    modules: Modules, x: Tensor, keep: Tensor | None, z: Tensor, cond: Cond, space: Space, settings: GANSettings
) -> Tensor:
    """z near to x, where `keep` is true, searched for from z."""
    c, scale = asked(modules, cond, settings.guidance).detach(), 0.5 / (NEAR * space.std) ** 2

    def energy(made: Tensor) -> Tensor:
        miss = (made - x).square()
        return scale * (miss if keep is None else miss * keep).flatten(1).sum(1)

    return search(lambda v: modules["generator"](v, c), z, energy, SEARCH)


@torch.no_grad()
def decode(modules: Modules, config: GANConfig, space: Space, z: Tensor, cond: Cond, settings: GANSettings) -> Tensor:
    return modules["generator"](z, asked(modules, cond, settings.guidance))


@torch.no_grad()
def edit(
    modules: Modules,
    config: GANConfig,
    space: Space,
    wanted: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: GANSettings,
) -> Tensor:
    """Examples changed as `wanted` says, (B, *space.shape), by a search in the latents.

    strength s: z = sqrt(1 - s^2) z(start) + s z', and what the generator cannot draw of `start` is added back (1 - s)
    times. keep: from there on the z whose picture agrees with what is kept. energy: the z of least weight * energy +
    |z|^2 / 2. Raises UserError for `keep` without `start`.
    """
    z = rng.normal("sample/noise", index, (config.latent,)) * settings.truncation
    c, rest = asked(modules, cond, settings.guidance), torch.zeros(1, device=z.device)
    start, s = wanted.start, wanted.strength
    if start is None and wanted.keep is not None:
        raise UserError("keep says which values of a start are to stay: give start as well.")
    if start is not None:
        if s == 0:
            return start.clone()
        known = encode(modules, config, space, start, cond, settings) if s < 1 else torch.zeros_like(z)
        z = math.sqrt(1 - s * s) * known + s * z
        if wanted.keep is not None:
            z = found(modules, start, wanted.keep, z, cond, space, settings)
        elif s < 1:
            rest = (1 - s) * (start - modules["generator"](known, c))
    if wanted.energy is not None:
        want, weight = wanted.energy, wanted.weight
        z = search(lambda v: modules["generator"](v, c), z, lambda x: weight * want(x), SEARCH)
    x = modules["generator"](z, c) + rest
    return x if start is None or wanted.keep is None else torch.where(wanted.keep, start, x)


FAMILY = Family(
    name="gan",
    accepts=accepts,
    config=GANConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        batch=lambda examples, space: 64,
        recipe={
            "optimizer": "adamw",
            "lr": 2e-3,
            "betas": (0.0, 0.9),
            "weight_decay": 0.0,
            "warmup": 0,
            "decay": 1.0,
            "ema_half_life": 10_000,
            "clip": 1e6,  # in effect never: Adam without momentum needs no help, and clipping would unbalance the game
        },
        regions=None,  # the penalty is differentiated twice, which torch.compile cannot do
    ),
    build=build,
    objective=GANObjective,
    sampling=Sampling(
        GANSettings, sample, guided=False
    ),  # measured: extrapolated conditions leave the data (docs/support.md)
    latents=Latents(encode, decode),
    edit=edit,
    policy=Policy(("generator", "generator_conditioning"), draw=draw),
)
