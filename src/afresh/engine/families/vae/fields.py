"""The VAE of fields of real numbers: images, spectrograms, waves, and the latents of a codec.

Kingma and Welling 2014; the decoder's variance is fitted to the data (Rybkin et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
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
    Likelihood,
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
from afresh.core.options import ANY
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_LAYERS
from afresh.core.solver_progress import step as tell
from afresh.core.space import SERIES
from afresh.engine.families.vae.latents import VAESettings, fit_density, mixture, prior_draw
from afresh.engine.nets.conditioning import Conditioning
from afresh.engine.nets.conv import ConvDecoder, ConvEncoder
from afresh.engine.nets.example_density import ExampleDensity
from afresh.engine.nets.gaussian import SCALE_RATE, Prior, Scale, gaussian_nll
from afresh.engine.nets.mixture import RequestMixture
from afresh.engine.nets.posterior import decode, encoding, posterior_draw, standardised
from afresh.engine.nets.velocity import FIELD_RECIPE
from afresh.engine.sampling.latent_search import search

DRAWS = 64  # posterior draws for an estimate of the likelihood
LARGE = 16  # cells of the shortest axis from which the finest grid is folded into channels
FEW = 1_000  # examples, up to which latents are drawn around those of single ones
MOST_EXAMPLES = 4_000  # whose latents a run holds
ROUNDS, SEARCH = 20, 100  # Gibbs rounds for filling a hole; optimisation steps of a search for latents


class VAEConfig(BaseModel):
    """Of fields: sizes of both networks, and options of the objective.

    `width`: channels of the finest grid, doubled with each halving up to `most` times `width`. `latent`: number of
    latents. `beta`: weight of the KL term (Higgins et al. 2017); 1 = the evidence lower bound. `components`: most
    Gaussians of the density fitted to the latents. `examples`: up to so many training examples, latents are drawn
    around those of single ones instead (nets/example_density.py); 0 in runs of earlier versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=1, ge=1, le=MOST_LAYERS)  # a grid
    most: int = Field(default=4, ge=1)
    patch: int = Field(default=1, ge=1)  # cells an axis folded into channels
    latent: int = Field(default=32, ge=1)
    cond: int = Field(default=64, ge=1)  # width of the condition's vector
    beta: float = Field(default=1.0, ge=0)
    components: int = Field(default=16, ge=1)
    examples: int = Field(default=0, ge=0, le=MOST_EXAMPLES)


def accepts(space: Space) -> str | None:
    if space.serial:
        return SERIES
    if space.kind != "field" or not 2 <= len(space.shape) <= 4:
        return f"a VAE models channels over 1 to 3 axes; the shape here is {space.shape}"
    return None


def sizes(space: Space) -> Sequence[VAEConfig]:
    """From LARGE cells, the finest grid is folded into channels, and there are more latents with a lower weight of KL.

    Samples of large grids are blurred because latents hold too little of an image, and not because of the density that
    is fitted to the latents (docs/development/log.md).
    """
    if min(space.shape[1:]) < LARGE:
        return [
            VAEConfig(width=16, latent=16, examples=FEW),
            VAEConfig(width=32, latent=16, examples=FEW),
            VAEConfig(width=64, latent=32, cond=128, examples=FEW),
            VAEConfig(width=96, blocks=2, latent=64, cond=128, examples=FEW),
            VAEConfig(width=128, blocks=3, latent=128, cond=256, examples=FEW),
        ]
    return [
        VAEConfig(width=width, patch=2, blocks=blocks, latent=128, cond=128, beta=0.1, examples=FEW)
        for width, blocks in ((16, 1), (32, 1), (64, 1), (96, 2), (128, 3))
    ]


def examples_wanted(parameters: int, space: Space) -> int:
    """One example for every 4 parameters; on large grids, one for every 130.

    With a width of 32 on 8x8 digits that is 85,000, at which samples become good. On 64x64 drawn photographs, widths of
    16 and 32 were equal after 40 s of a core (6,400 and 4,200 examples), and 32 was better after 150 s (21,600 and
    26,800; docs/development/log.md).
    """
    return parameters // (4 if min(space.shape[1:]) < LARGE else 130)


def build(config: VAEConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """The networks, and the density of the latents."""
    c = config
    sizes = (space.shape, c.cond, c.latent, c.width, c.blocks, c.most, c.patch)
    return {
        "conditioning": Conditioning(conds, c.cond),
        "encoder": ConvEncoder(*sizes),
        "decoder": ConvDecoder(*sizes),
        "prior": Prior(c.cond, c.latent),
        "scale": Scale(space.std),
        "density": mixture(conds, c.components, c.latent),
        **({"examples": ExampleDensity(conds, c.examples, c.latent, c.cond)} if c.examples else {}),
    }


class VAEObjective:
    """-ELBO = -log p(x | z) + beta KL(q(z | x, c) || p(z | c)), in nats for each example, with one draw of z.

    The gradient of sigma is computed separately and divided by the size of the field. Otherwise it would dominate those
    of the networks when gradients are clipped. The value of the loss is still that of the bound. The fitted density is
    not part of the loss.
    """

    averaged = ("conditioning", "encoder", "decoder", "prior", "scale")

    def __init__(self, config: VAEConfig, space: Space) -> None:
        self.config, self.dims = config, math.prod(space.shape)
        fitted = ("density", "examples") if config.examples else ("density",)
        self.players: Mapping[str, tuple[str, ...]] = {"model": (*self.averaged, *fitted)}

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        noise = rng.normal("vae/latent", batch.index, (self.config.latent,))
        posterior = posterior_draw(modules, encoding(modules, batch.x, batch.cond), noise)
        error = batch.x.float() - posterior.x
        log_sigma = modules["scale"]()
        nll = gaussian_nll(error, log_sigma.detach())  # trains the networks
        fit = gaussian_nll(error.detach(), log_sigma) / (self.dims * SCALE_RATE)  # trains sigma
        kl = posterior.kl.sum(1)
        total = nll + self.config.beta * kl + (fit - fit.detach())
        metrics = {"loss": nll + kl, "kl": kl, "mse": error.square().flatten(1).mean(1)}
        return total.sum(), float(len(total)), {k: v.detach().sum() for k, v in metrics.items()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def draw(
    modules: Modules, config: VAEConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """The decoder's mean (n, *space.shape) for latents drawn from the prior; differentiable in the weights."""
    with torch.no_grad():
        u = prior_draw(modules, cond, rng, index, settings)
    return decode(modules, u, cond, settings.guidance)


sample = torch.no_grad()(draw)


# --------------------------------------------------------------------------- likelihood


def elbo(modules: Modules, config: VAEConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """The lower bound of log p(x | condition) with one draw of z, (B,), in nats."""
    noise = rng.normal("vae/score", batch.index, (config.latent,))
    posterior = posterior_draw(modules, encoding(modules, batch.x, batch.cond), noise)
    error = batch.x.float() - posterior.x
    return -gaussian_nll(error, modules["scale"]()) - posterior.kl.sum(1)


score = torch.no_grad()(elbo)


@torch.no_grad()
def likelihood(modules: Modules, config: VAEConfig, space: Space, batch: Batch, rng: Rng, draws: int = DRAWS) -> Tensor:
    """log 1/K sum_k p(x, u_k) / q(u_k | x), u_k ~ q: a lower bound of log p(x | condition), in nats, (B,).

    Burda et al. 2016 ("Importance weighted autoencoders", eq. 8): exact in the limit of many `draws` K. p(u) is the
    fitted density, as in sampling.
    """
    encoded, density = encoding(modules, batch.x, batch.cond), modules["density"]
    assert isinstance(density, RequestMixture)
    row, estimates = density.row(batch.cond), []
    for k in range(draws):
        tell(k, draws)
        one = posterior_draw(modules, encoded, rng.normal(f"vae/likelihood/{k}", batch.index, (config.latent,)))
        error = batch.x.float() - one.x
        prior = density.log_prob(one.u, row)
        deviation = (one.u - one.mean) * (-0.5 * one.log_var).exp()
        posterior = -gaussian_nll(deviation, one.u.new_zeros(())) - 0.5 * one.log_var.sum(1)
        estimates.append(prior - posterior - gaussian_nll(error, modules["scale"]()))
    return torch.logsumexp(torch.stack(estimates), 0) - math.log(draws)


# --------------------------------------------------------------------------- latents and edits


@torch.no_grad()
def encode(modules: Modules, config: VAEConfig, space: Space, x: Tensor, cond: Cond, settings: VAESettings) -> Tensor:
    """The posterior's mean as u (B, D), in which the conditional prior is standard normal."""
    return standardised(modules, encoding(modules, x, cond))[0]


@torch.no_grad()
def decode_latents(
    modules: Modules, config: VAEConfig, space: Space, u: Tensor, cond: Cond, settings: VAESettings
) -> Tensor:
    """The decoder's mean (B, *space.shape) for u (B, D)."""
    return decode(modules, u, cond, settings.guidance)


@torch.no_grad()
def edit(
    modules: Modules,
    config: VAEConfig,
    space: Space,
    task: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: VAESettings,
) -> Tensor:
    """Carries out the edit `task`, (B, *space.shape); without `start`, returns samples of low energy.

    strength s: u = sqrt(1 - s^2) E[u | start] + s u', with u' from the prior; (1 - s) times the reconstruction error of
    `start` is added to the result. keep: the values of the hole and the latents are drawn in turn, a Markov chain that
    converges to p(hole | rest) (Rezende et al. 2014, "Stochastic backpropagation and approximate inference in deep
    generative models", app. F); then u is optimised locally. energy: u minimises weight * energy + |u|^2 / 2. Raises
    UserError for `keep` without `start`.
    """
    start, s = task.start, task.strength
    u = prior_draw(modules, cond, rng, index, settings)
    if start is None:
        if task.keep is not None:
            raise UserError("`keep` marks the values of `start` that must not change: give `start` as well.")
        return decode(modules, _optimise(modules, task, u, cond, settings), cond, settings.guidance)
    if s == 0:
        return start.clone()
    mean = encode(modules, config, space, start, cond, settings)
    u = math.sqrt(1 - s * s) * mean + s * u
    if task.keep is None:
        u = _optimise(modules, task, u, cond, settings)
        residual = start - decode(modules, mean, cond)
        return decode(modules, u, cond, settings.guidance) + (1 - s) * residual
    rounds = math.ceil(ROUNDS * s)
    for k in range(rounds):
        x = torch.where(task.keep, start, decode(modules, u, cond, settings.guidance))
        tell(k, rounds, partial(torch.clone, x))
        u = posterior_draw(modules, encoding(modules, x, cond), rng.normal(f"edit/{k}", index, (u.shape[1],))).u
    u = _optimise(modules, task, u, cond, settings)
    return torch.where(task.keep, start, decode(modules, u, cond, settings.guidance))


def _optimise(modules: Modules, task: Edit, u: Tensor, cond: Cond, settings: VAESettings) -> Tensor:
    """u (B, D) after a search for the values to keep and for low energy, if the task has either."""
    if task.keep is None and task.energy is None:
        return u
    variance = modules["scale"]().mul(2).exp().mean()  # of p(x | z)

    def energy(x: Tensor) -> Tensor:
        total = x.new_zeros(len(x))
        if task.energy is not None:
            total = total + task.weight * task.energy(x)
        if task.keep is not None and task.start is not None:
            total = total + 0.5 * ((x - task.start).square() * task.keep).flatten(1).sum(1) / variance
        return total

    return search(lambda v: decode(modules, v, cond, settings.guidance), u, energy, SEARCH)


FAMILY = Family(
    name="vae",
    accepts=accepts,
    config=VAEConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        recipe=lambda space: {
            **FIELD_RECIPE,
            "warmup": 100,
            "decay": 0.5,
            "ema_half_life": 10_000,
            "clip": 1.0,
        },
        regions=lambda modules, device: [modules["encoder"], modules["decoder"]],
    ),
    build=build,
    objective=VAEObjective,
    sampling=Sampling(VAESettings, sample),
    # The held-out bound rises long before samples become worse (docs/development/log.md).
    likelihood=Likelihood(
        score,
        density=likelihood,
        bound=True,
        selects=False,
        method=f"importance-weighted lower bound of {DRAWS} draws",
    ),
    finish=partial(fit_density, read=lambda batch, space: batch.x),
    latents=Latents(encode, decode_latents),
    edit=edit,
    evaluations=Evaluations(
        edit=lambda space, settings, keep: 3 * ROUNDS + SEARCH if keep else SEARCH, score=lambda space: 2 * DRAWS
    ),
    policy=Policy(("conditioning", "encoder", "decoder", "prior"), score=elbo, draw=draw, fits=True),
    retired={"dropout": ANY, "negatives": ANY, "slots": ANY, "share": ANY},
    how="draws from a small code",
    remedies={
        "blurred": Remedy("flow", "The flow gives sharper {plural} than the VAE, and needs more minutes.", times=4)
    },
)
