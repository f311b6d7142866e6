"""Generative adversarial network: R3GAN (Huang et al. 2024) with adaptive differentiable augmentation."""

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
    Evaluations,
    Family,
    Latents,
    Loss,
    Modules,
    PlanHints,
    Policy,
    Remedy,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_LAYERS
from afresh.core.space import SERIES
from afresh.core.state import state_number
from afresh.engine.nets.augment import augment
from afresh.engine.nets.conditioning import Conditioning
from afresh.engine.nets.conv import Critic, Generator
from afresh.engine.nets.double_backward import inputs_only
from afresh.engine.sampling.latent_search import search

CONTROL = 0.005  # change of the augmentation's probability in a step, relative to the deviation from `ahead`
LAZY = 4  # steps between two penalties: 1.9 times the steps in the same time (docs/development/log.md)
NEAR, SEARCH = 0.1, 150  # tolerance of a search for latents, in standard deviations of the data; its steps


class GANConfig(BaseModel):
    """Sizes of both networks, and options of the objective.

    `width`: channels of the finest grid, doubled with each halving up to `most` times `width`. `group`: channels in
    each group of the middle convolutions, 0 = ungrouped (faster on CPUs). `gamma`: weight of the gradient penalties.
    `augment`: initial probability of each augmentation. `ahead`: share of correctly ordered pairs of the critic above
    which augmentation increases; 0 keeps it constant. `penalty_every`: steps between two gradient penalties, which are
    as many times as strong (Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", app. B).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=1, ge=1, le=MOST_LAYERS)  # a grid
    most: int = Field(default=4, ge=1)
    group: int = Field(default=0, ge=0)
    latent: int = Field(default=64, ge=1)  # values of the noise
    cond: int = Field(default=64, ge=1)  # width of the condition's vector
    gamma: float = Field(default=1.0, ge=0)
    augment: float = Field(default=0.0, ge=0, le=1)
    ahead: float = Field(default=0.9, ge=0, le=1)
    penalty_every: int = Field(default=1, ge=1, le=64)


class GANSettings(BaseModel):
    """Options of sampling.

    `truncation` scales the latent (1 = as trained, 0 = its mean): smaller values give more typical and less diverse
    samples.

    `guidance` g moves the condition's vector from the learned null c0 to c0 + g (c - c0); 1 = as trained. Larger values
    follow labels more closely, at the cost of diversity. Little diversity is left at 3, the largest value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    truncation: float = Field(default=1.0, ge=0, le=1)
    guidance: float = Field(default=1.0, ge=0, le=3)


def accepts(space: Space) -> str | None:
    if space.serial:
        return SERIES
    if space.kind != "field":
        return "a GAN needs gradients through its samples, fields of real numbers; tokens go with transformer"
    if not 2 <= len(space.shape) <= 4:
        return f"a GAN draws channels over 1 to 3 axes; the shape here is {space.shape}"
    return None


def sizes(space: Space) -> Sequence[GANConfig]:
    return [
        GANConfig(width=16, penalty_every=LAZY),
        GANConfig(width=32, penalty_every=LAZY),
        GANConfig(width=64, cond=128, penalty_every=LAZY),
        GANConfig(width=96, blocks=2, cond=128, penalty_every=LAZY),
        GANConfig(width=128, blocks=3, cond=128, penalty_every=LAZY),
    ]


def examples_wanted(parameters: int, space: Space) -> int:
    """One example for every 6 parameters (53,000 for a width of 32 on 8x8 digits, at which samples become good)."""
    return parameters // 6


def build(config: GANConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    c = config
    return {
        "generator_conditioning": Conditioning(conds, c.cond),
        "generator": Generator(space.shape, c.cond, c.latent, c.width, c.blocks, c.most, c.group),
        "critic_conditioning": Conditioning(conds, c.cond),
        "critic": Critic(space.shape, c.cond, c.width, c.blocks, c.most, c.group),
    }


def gradient_penalty(scores: Tensor, x: Tensor) -> Tensor:
    """|d score / d x|^2 of each example, (B,); itself differentiable. x (B, ...) is the float32 leaf of the scores."""
    with inputs_only():
        (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


class GANObjective:
    """min_G max_D E[f(D(fake) - D(real))], f(t) = -softplus(t), with the penalties R1 and R2 on the critic.

    Huang et al. 2024, sec. 2: relativistic pairing, and zero-centred gradient penalties gamma / 2 |dD/dx|^2 on real and
    on generated data. Both examples of a pair have the same condition, which may be the null. The penalties are taken
    at the critic's input, after augmentation, where the critic must be smooth. This input is a float32 leaf; the
    products in the networks may be bfloat16 (measured: penalties differ by 0.4%, the direction of their gradient does
    not).
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
            penalised = step % self.config.penalty_every == 0
            return self.critic(modules, batch, z, rng, self.strength(state), penalised)
        return self.generator(modules, batch, z, rng, self.strength(state))

    def strength(self, state: State) -> float:
        """The current probability of each augmentation."""
        return state_number(state, "augment", 0, 1) if "augment" in state else self.config.augment

    def critic(self, modules: Modules, batch: Batch, z: Tensor, rng: Rng, p: float, penalised: bool = True) -> Loss:
        """The critic's loss, and if `penalised` its penalties, with augmentation of probability p."""
        with torch.no_grad():
            fake = modules["generator"](z, modules["generator_conditioning"](batch.cond))
            real = augment(batch.x.float(), rng, batch.index, "gan/critic/real", p)
            x = torch.cat([real, augment(fake, rng, batch.index, "gan/critic/made", p)])  # (2 B, C, *grid)
        x.requires_grad_(penalised)
        c = modules["critic_conditioning"](batch.cond)
        scores = modules["critic"](x, torch.cat([c, c]))
        on_real, on_fake = scores.chunk(2)
        pairing = F.softplus(on_fake - on_real)
        total, metrics = pairing, {"loss": pairing, "ahead": (on_real > on_fake).float()}
        if penalised:
            # As often as they are left out, so that their mean over steps stays.
            r1, r2 = (self.config.penalty_every * r for r in gradient_penalty(scores, x).chunk(2))
            total = total + 0.5 * self.config.gamma * (r1 + r2)
            metrics |= {"r1": r1, "r2": r2}
        sums = {k: v.detach().sum() for k, v in metrics.items()}
        return total.sum(), float(len(z)), sums | {"augment": torch.tensor(p * len(z))}

    def generator(self, modules: Modules, batch: Batch, z: Tensor, rng: Rng, p: float) -> Loss:
        """The generator's loss, with augmentation of probability p."""
        critic, c = modules["critic"], modules["critic_conditioning"](batch.cond)
        with torch.no_grad():
            on_real = critic(augment(batch.x.float(), rng, batch.index, "gan/generator/real", p), c)
        fake = modules["generator"](z, modules["generator_conditioning"](batch.cond))
        on_fake = critic(augment(fake, rng, batch.index, "gan/generator/made", p), c)
        total = F.softplus(on_real - on_fake).sum()
        return total, float(len(z)), {"pairing": total.detach()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        """Adapts augmentation to the share of pairs that the critic orders correctly, whose target is `ahead`.

        The sign heuristic of Karras et al. 2020 ("Training generative adversarial networks with limited data", eq. 1;
        their target 0.6 is 2 ahead - 1), applied to pairs, as a proportional control. The target is higher than theirs:
        on digits, samples still improved in every respect when the critic ordered 88% of the pairs correctly.
        """
        if not self.config.ahead:
            return state
        p = self.strength(state) + CONTROL * (metrics["critic/ahead"] - self.config.ahead)
        return {**state, "augment": torch.tensor(min(1.0, max(0.0, p)))}


def guided(modules: Modules, cond: Cond, guidance: float) -> Tensor:
    """The condition's vector (B, cond) under guidance."""
    c = modules["generator_conditioning"](cond)
    if guidance == 1:
        return c
    null = modules["generator_conditioning"](cond.null())
    return null + guidance * (c - null)


def draw(
    modules: Modules, config: GANConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: GANSettings
) -> Tensor:
    """Samples (n, *space.shape) from latents keyed by `index`; differentiable in the weights."""
    z = rng.normal("sample/noise", index, (config.latent,)) * settings.truncation
    return modules["generator"](z, guided(modules, cond, settings.guidance))


sample = torch.no_grad()(draw)


@torch.no_grad()
def encode(modules: Modules, config: GANConfig, space: Space, x: Tensor, cond: Cond, settings: GANSettings) -> Tensor:
    """The z (B, latent) of x, found by optimisation from the mean, since a GAN has no encoder.

    It minimises |x - G(z)|^2 / (2 NEAR^2 std^2) + |z|^2 / 2 (Bora et al. 2017). Examples that the generator does not
    draw are only approximated.
    """
    return nearest(modules, x, None, x.new_zeros(len(x), config.latent), cond, space, settings)


def nearest(
    modules: Modules, x: Tensor, keep: Tensor | None, z: Tensor, cond: Cond, space: Space, settings: GANSettings
) -> Tensor:
    """The latents whose samples are nearest to x where `keep` is true, optimised from z."""
    c, scale = guided(modules, cond, settings.guidance).detach(), 0.5 / (NEAR * space.std) ** 2

    def energy(fake: Tensor) -> Tensor:
        error = (fake - x).square()
        return scale * (error if keep is None else error * keep).flatten(1).sum(1)

    return search(lambda v: modules["generator"](v, c), z, energy, SEARCH)


@torch.no_grad()
def decode(modules: Modules, config: GANConfig, space: Space, z: Tensor, cond: Cond, settings: GANSettings) -> Tensor:
    """Samples (B, *space.shape) of the latents z (B, latent)."""
    return modules["generator"](z, guided(modules, cond, settings.guidance))


@torch.no_grad()
def edit(
    modules: Modules,
    config: GANConfig,
    space: Space,
    task: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: GANSettings,
) -> Tensor:
    """Carries out the edit `task`, (B, *space.shape), by a search for latents.

    strength s: z = sqrt(1 - s^2) z(start) + s z'; (1 - s) times the reconstruction error of `start` is added to the
    result. keep: starting there, the z whose sample agrees with the values to keep. energy: z minimises weight * energy
    + |z|^2 / 2. Raises UserError for `keep` without `start`.
    """
    z = rng.normal("sample/noise", index, (config.latent,)) * settings.truncation
    c, residual = guided(modules, cond, settings.guidance), torch.zeros(1, device=z.device)
    start, s = task.start, task.strength
    if start is None and task.keep is not None:
        raise UserError("`keep` marks the values of `start` that must not change: give `start` as well.")
    if start is not None:
        if s == 0:
            return start.clone()
        latent = encode(modules, config, space, start, cond, settings) if s < 1 else torch.zeros_like(z)
        z = math.sqrt(1 - s * s) * latent + s * z
        if task.keep is not None:
            z = nearest(modules, start, task.keep, z, cond, space, settings)
        elif s < 1:
            residual = (1 - s) * (start - modules["generator"](latent, c))
    if task.energy is not None:
        energy, weight = task.energy, task.weight
        z = search(lambda v: modules["generator"](v, c), z, lambda x: weight * energy(x), SEARCH)
    x = modules["generator"](z, c) + residual
    return x if start is None or task.keep is None else torch.where(task.keep, start, x)


FAMILY = Family(
    name="gan",
    accepts=accepts,
    config=GANConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        recipe=lambda space: {
            "optimizer": "adamw",
            "lr": 2e-3,
            "betas": (0.0, 0.9),
            "weight_decay": 0.0,
            "warmup": 0,
            "decay": 1.0,
            "ema_half_life": 10_000,
            "clip": 1e6,  # in effect never: Adam without momentum does not need it, and it would unbalance the game
        },
        regions=None,  # the penalty needs second derivatives, which torch.compile does not support
    ),
    build=build,
    objective=GANObjective,
    # Not guided: extrapolated conditions were measured to leave the data (docs/results/support.md).
    sampling=Sampling(GANSettings, sample, guided=False),
    latents=Latents(encode, decode),
    edit=edit,
    evaluations=Evaluations(edit=lambda space, settings, keep: 3 * SEARCH, latents=lambda space, settings: SEARCH),
    policy=Policy(("generator", "generator_conditioning"), draw=draw),
    how="draws in one go",
    remedies={"collapsed": Remedy("vae", "The VAE does not collapse as a GAN can.")},
)
