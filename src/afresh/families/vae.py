"""Conditional variational autoencoder, flat or hierarchical, with a density fitted to its latents after training.

Kingma and Welling 2014; the prior of the latent is a normal that follows the condition (Sohn et al. 2015, "Learning
structured output representation using deep conditional generative models"); the decoder's variances are those that
the data wants (Rybkin et al. 2021). Latents are counted as u (B, D), standard normal under the prior of the condition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Edit,
    Examples,
    Family,
    Latents,
    Likelihood,
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
from afresh.nets.conditioning import Conditioning
from afresh.nets.conv import Decoder, Encoder
from afresh.nets.gaussian import SCALE_RATE, Prior, Scale, gaussian_nll
from afresh.nets.hierarchy import LadderDecoder, Pyramid
from afresh.nets.mixture import RequestMixture
from afresh.nets.posterior import decode, encoding, posterior_draw
from afresh.sampling.search import search

DENSE, RANK = 512, 128  # latents that the fitted density is of at most; rank of its covariances beside their diagonals
FITTED, FEWEST = 12_000, 50  # examples that a density is fitted to at most, and those that a class needs
DRAWS = 64  # of the posterior, for a likelihood
LARGE = 16  # cells a side of a grid whose finest level is folded away
ROUNDS, SEARCH = 20, 100  # of drawing a hole and its latents in turn; steps of a search for latents


class VAEConfig(BaseModel):
    """Sizes of both networks, and the bound's settings.

    `width`: channels of the finest grid, doubled with each halving up to `most` times. `hierarchy`: how many grids,
    from the coarsest on, have `places` latents a cell of their own beside the `latent` ones of the whole; 0 = none.
    `beta`: weight of the KL term (Higgins et al. 2017); 1 = the bound. `free_bits`: nats that each dimension of the
    latent may cost an example for nothing (Kingma et al. 2016, app. C.8; there the mean over a batch, here each
    example, so that a batch can be divided). `noise`: whether p(x | z) has one deviation, or one for each frequency.
    `components`: Gaussians of the density fitted to the latents, at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=1, ge=1)
    most: int = Field(default=4, ge=1)
    patch: int = Field(default=1, ge=1)
    latent: int = Field(default=32, ge=1)
    cond: int = Field(default=64, ge=1)
    hierarchy: int = Field(default=0, ge=0)
    places: int = Field(default=4, ge=1)
    beta: float = Field(default=1.0, ge=0)
    free_bits: float = Field(default=0.0, ge=0)
    noise: Literal["white", "spectrum"] = "white"
    components: int = Field(default=16, ge=1)


class VAESettings(BaseModel):
    """`prior`: draw latents from the density that was fitted to them once training was over, or from the normal that
    training assumed. `truncation` scales their distance from the prior's mean (1 = as drawn): lower is more typical
    and less varied.

    `guidance` g moves the decoder's condition vector from the learned null c0 to c0 + g (c - c0): 1 = as trained.
    More makes labels surer and samples less varied; beyond 3 little variety is left, so more is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    prior: Literal["fitted", "normal"] = "fitted"
    truncation: float = Field(default=1.0, ge=0, le=1)
    guidance: float = Field(default=1.0, ge=0, le=3)


def accepts(space: Space) -> str | None:
    if space.kind != "field":
        return "a VAE models a field of real numbers; tokens go with transformer"
    if not 2 <= len(space.shape) <= 4:
        return f"a VAE models channels over 1 to 3 axes; the shape here is {space.shape}"
    return None


def sizes(space: Space) -> Sequence[VAEConfig]:
    """From LARGE cells a side on the finest grid is folded away, and there are more latents that cost less: what blurs
    samples there is what the latents do not say of a picture, not the density of the latents (docs/log.md)."""
    if min(space.shape[1:]) < LARGE:
        return [
            VAEConfig(width=16, latent=16),
            VAEConfig(width=32, latent=16),
            VAEConfig(width=64, latent=32, cond=128),
            VAEConfig(width=96, blocks=2, latent=64, cond=128),
            VAEConfig(width=128, blocks=3, latent=128, cond=256),
        ]
    return [
        VAEConfig(width=width, patch=2, blocks=blocks, latent=128, cond=128, beta=0.1)
        for width, blocks in ((32, 1), (64, 1), (96, 2), (128, 3))
    ]


def examples_wanted(parameters: int, space: Space) -> int:
    """One example for every 4 parameters (32 wide on 8x8 digits: 85,000, where samples are first good). Of large grids
    for every 20: 64 wide on 28x28 clothes was far ahead of 32 wide at full resolution from 32,000 on (docs/log.md)."""
    return parameters // (4 if min(space.shape[1:]) < LARGE else 20)


def build(config: VAEConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """The networks, and the density of the coarsest latents, as many grids' as come to no more than DENSE."""
    c = config
    sizes = (space.shape, c.cond, c.latent, c.width, c.blocks, c.most, c.patch)
    made: dict[str, nn.Module] = {
        "conditioning": Conditioning(conds, c.cond),
        "encoder": Pyramid(*sizes) if c.hierarchy else Encoder(*sizes),
        "decoder": LadderDecoder(*sizes, c.hierarchy, c.places) if c.hierarchy else Decoder(*sizes),
        "prior": Prior(c.cond, c.latent),
        "scale": Scale(space.std, space.shape if c.noise == "spectrum" else ()),
    }
    decoder, dense = made["decoder"], c.latent
    for shape in decoder.shapes if isinstance(decoder, LadderDecoder) else ():
        if dense + math.prod(shape) > DENSE:
            break
        dense += math.prod(shape)
    return made | {"density": RequestMixture(conds, c.components, dense, RANK)}


def regions(modules: Modules, device: str) -> Sequence[nn.Module]:
    decoder = modules["decoder"]
    return [modules["encoder"], *(decoder.levels if isinstance(decoder, LadderDecoder) else [decoder])]


def dimensions(modules: Modules, config: VAEConfig) -> int:
    """D: values of u."""
    decoder = modules["decoder"]
    return decoder.dim if isinstance(decoder, LadderDecoder) else config.latent


# --------------------------------------------------------------------------- the objective


def errors(modules: Modules, x: Tensor, target: Tensor) -> Tensor:
    """target - x in the basis where the errors of p(x | z) are independent, (B, *shape)."""
    scale = modules["scale"]
    assert isinstance(scale, Scale)
    return scale.frequencies(target.float() - x)


class VAEObjective:
    """-ELBO = -log p(x | z) + beta KL(q(z | x, c) || p(z | c)), nats an example, by one draw of z.

    sigma's gradient is apart from the networks' and divided by the field's size: else it would drown theirs where
    gradients are clipped. The loss has the bound's exact value all the same. The fitted density has no part in it.
    """

    players: Mapping[str, tuple[str, ...]] = {
        "model": ("conditioning", "encoder", "decoder", "prior", "scale", "density")
    }
    averaged = ("conditioning", "encoder", "decoder", "prior", "scale")

    def __init__(self, config: VAEConfig, space: Space) -> None:
        self.config, self.dims = config, math.prod(space.shape)

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        noise = rng.normal("vae/latent", batch.index, (dimensions(modules, self.config),))
        found = posterior_draw(modules, encoding(modules, batch.x, batch.cond), noise)
        error = errors(modules, found.x, batch.x)
        log_sigma = modules["scale"]()
        nll = gaussian_nll(error, log_sigma.detach())  # moves the networks
        fit = gaussian_nll(error.detach(), log_sigma) / (self.dims * SCALE_RATE)  # moves sigma
        paid = found.kl.clamp_min(self.config.free_bits).sum(1)
        total = nll + self.config.beta * paid + (fit - fit.detach())
        kl = found.kl.sum(1)
        metrics = {"loss": nll + kl, "kl": kl, "mse": error.square().flatten(1).mean(1)}
        return total.sum(), float(len(total)), {k: v.detach().sum() for k, v in metrics.items()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


# --------------------------------------------------------------------------- the density of latents


@torch.no_grad()
def finish(modules: Modules, config: VAEConfig, space: Space, examples: Examples, rng: Rng) -> Mapping[str, Tensor]:
    """The mixtures that latents of training examples follow, {"density.NAME": tensor}; none for under 10 examples.

    Ghosh et al. 2020 ("From variational to deterministic autoencoders", sec. 4). They are fitted to draws of the
    posterior, not to its means: what samples are to follow is the aggregate posterior, the mean over examples of
    q(u | x), and the decoder has only ever seen its draws. Mixtures of the means alone would be narrower, and the more
    components the nearer to copies of the examples.
    """
    density, n = modules["density"], len(examples)
    assert isinstance(density, RequestMixture)
    if n < 10:
        return {}
    rows = torch.arange(n) if n <= FITTED else torch.linspace(0, n - 1, FITTED).long()
    cond = examples.cond.select(rows)
    plain = drawn(modules, config, examples, rows, cond.null(), rng)
    asked = drawn(modules, config, examples, rows, cond, rng) if cond.parts else plain
    seed = int(rng.bits("vae/density", torch.zeros(1, dtype=torch.int64))) % 2**31
    found = density.fitted(plain, asked, cond, max(FEWEST, density.dim), seed)
    return {f"density.{k}": v for k, v in found.items()}


def drawn(modules: Modules, config: VAEConfig, examples: Examples, rows: Tensor, cond: Cond, rng: Rng) -> Any:
    """Draws (S, N, D') of the u that the density is of, for examples by row, float64."""
    density, found = modules["density"], []
    assert isinstance(density, RequestMixture)
    device = density.get_buffer("mean").device
    for part in torch.arange(len(rows)).split(256):
        x = (examples.x[rows[part]].float() * examples.scale + examples.shift).to(device)
        seen = encoding(modules, x, cond.select(part).to(device))
        each = []
        for s in range(max(1, min(4, FITTED // len(rows)))):
            noise = rng.normal(f"vae/density/{s}", rows[part].to(device), (dimensions(modules, config),))
            each.append(posterior_draw(modules, seen, noise).u[:, : density.dim])
        found.append(torch.stack(each))
    return torch.cat(found, 1).double().cpu().numpy()


def prior_draw(
    modules: Modules, config: VAEConfig, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """u (n, D) as the settings want it, keyed by `index`."""
    u = rng.normal("sample/noise", index, (dimensions(modules, config),))
    if settings.prior == "normal":
        return u * settings.truncation
    density = modules["density"]
    assert isinstance(density, RequestMixture)
    row, centre = density.row(cond), density.centre(density.row(cond))
    pick, along = rng.uniform("sample/pick", index), rng.normal("sample/along", index, (density.rank,))
    top = density.draw(row, pick, u[:, : density.dim], along)
    top = centre + settings.truncation * (top - centre)
    return torch.cat([top, settings.truncation * u[:, density.dim :]], 1)


def made(
    modules: Modules, config: VAEConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """The decoder's mean, (n, *space.shape), of latents drawn from the prior; differentiable in the weights."""
    with torch.no_grad():
        u = prior_draw(modules, config, cond, rng, index, settings)
    return decode(modules, u, cond, settings.guidance)


sample = torch.no_grad()(made)


# --------------------------------------------------------------------------- likelihood


def elbo(modules: Modules, config: VAEConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """The bound on log p(x | condition) by one draw of z, (B,) nats."""
    noise = rng.normal("vae/score", batch.index, (dimensions(modules, config),))
    found = posterior_draw(modules, encoding(modules, batch.x, batch.cond), noise)
    error = errors(modules, found.x, batch.x)
    return -gaussian_nll(error, modules["scale"]()) - found.kl.sum(1)


score = torch.no_grad()(elbo)


@torch.no_grad()
def likelihood(modules: Modules, config: VAEConfig, space: Space, batch: Batch, rng: Rng, draws: int = DRAWS) -> Tensor:
    """log 1/K sum_k p(x, u_k) / q(u_k | x), u_k ~ q: a lower bound of log p(x | condition), nats (B,).

    Burda et al. 2016 ("Importance weighted autoencoders", eq. 8): exact as K = `draws` grows. p(u) is the fitted
    density where there is one, as in samples.
    """
    seen, dim, density = encoding(modules, batch.x, batch.cond), dimensions(modules, config), modules["density"]
    assert isinstance(density, RequestMixture)
    row, top, found = density.row(batch.cond), density.dim, []
    for k in range(draws):
        one = posterior_draw(modules, seen, rng.normal(f"vae/likelihood/{k}", batch.index, (dim,)))
        error = errors(modules, one.x, batch.x)
        prior = density.log_prob(one.u[:, :top], row) - gaussian_nll(one.u[:, top:], one.u.new_zeros(()))
        away = (one.u - one.mean) * (-0.5 * one.log_var).exp()
        posterior = -gaussian_nll(away, one.u.new_zeros(())) - 0.5 * one.log_var.sum(1)
        found.append(prior - posterior - gaussian_nll(error, modules["scale"]()))
    return torch.logsumexp(torch.stack(found), 0) - math.log(draws)


# --------------------------------------------------------------------------- latents and edits


@torch.no_grad()
def encode(modules: Modules, config: VAEConfig, space: Space, x: Tensor, cond: Cond, settings: VAESettings) -> Tensor:
    """The posterior's mean as u (B, D), standard normal under the condition's prior."""
    seen = encoding(modules, x, cond)
    return posterior_draw(modules, seen, x.new_zeros(len(x), dimensions(modules, config))).mean


@torch.no_grad()
def decode_latents(
    modules: Modules, config: VAEConfig, space: Space, u: Tensor, cond: Cond, settings: VAESettings
) -> Tensor:
    return decode(modules, u, cond, settings.guidance)


@torch.no_grad()
def edit(
    modules: Modules,
    config: VAEConfig,
    space: Space,
    wanted: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: VAESettings,
) -> Tensor:
    """Examples changed as `wanted` says, (B, *space.shape); without `start`, samples of low energy.

    strength s: u = sqrt(1 - s^2) E[u | start] + s u', with u' from the prior. What the latents cannot say of `start`
    is added back (1 - s) times. keep: what is drawn in a hole and the latents are drawn in turn, a Markov chain whose
    limit is p(hole | rest) (Rezende et al. 2014, "Stochastic backpropagation and approximate inference in deep
    generative models", app. F), and last the likeliest u near is searched. energy: the u of least weight * energy +
    |u|^2 / 2. Raises UserError for `keep` without `start`.
    """
    start, s = wanted.start, wanted.strength
    u = prior_draw(modules, config, cond, rng, index, settings)
    if start is None:
        if wanted.keep is not None:
            raise UserError("keep says which values of a start are to stay: give start as well.")
        return decode(modules, _descended(modules, wanted, u, cond, settings), cond, settings.guidance)
    if s == 0:
        return start.clone()
    known = encode(modules, config, space, start, cond, settings)
    u = math.sqrt(1 - s * s) * known + s * u
    if wanted.keep is None:
        u = _descended(modules, wanted, u, cond, settings)
        left = start - decode(modules, known, cond)
        return decode(modules, u, cond, settings.guidance) + (1 - s) * left
    for k in range(math.ceil(ROUNDS * s)):
        x = torch.where(wanted.keep, start, decode(modules, u, cond, settings.guidance))
        u = posterior_draw(modules, encoding(modules, x, cond), rng.normal(f"edit/{k}", index, (u.shape[1],))).u
    u = _descended(modules, wanted, u, cond, settings)
    return torch.where(wanted.keep, start, decode(modules, u, cond, settings.guidance))


def _descended(modules: Modules, wanted: Edit, u: Tensor, cond: Cond, settings: VAESettings) -> Tensor:
    """u (B, D) after a search for what is to be kept and for little energy, where either is wanted."""
    if wanted.keep is None and wanted.energy is None:
        return u
    variance = modules["scale"]().mul(2).exp().mean()  # of p(x | z), over frequencies

    def energy(x: Tensor) -> Tensor:
        total = x.new_zeros(len(x))
        if wanted.energy is not None:
            total = total + wanted.weight * wanted.energy(x)
        if wanted.keep is not None and wanted.start is not None:
            total = total + 0.5 * ((x - wanted.start).square() * wanted.keep).flatten(1).sum(1) / variance
        return total

    return search(lambda v: decode(modules, v, cond, settings.guidance), u, energy, SEARCH)


FAMILY = Family(
    name="vae",
    accepts=accepts,
    config=VAEConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        batch=lambda examples, space: 64,
        recipe={
            "optimizer": "muon",
            "matrix_lr": 0.02,
            "lr": 2e-3,
            "betas": (0.9, 0.99),
            "weight_decay": 0.01,
            "warmup": 100,
            "decay": 0.5,
            "ema_half_life": 10_000,
            "clip": 1.0,
        },
        regions=regions,
    ),
    build=build,
    objective=VAEObjective,
    sampling=Sampling(VAESettings, sample),
    likelihood=Likelihood(score, density=likelihood, bound=True),
    finish=finish,
    latents=Latents(encode, decode_latents),
    edit=edit,
    policy=Policy(("conditioning", "encoder", "decoder", "prior"), score=elbo, draw=made, fits=True),
)
