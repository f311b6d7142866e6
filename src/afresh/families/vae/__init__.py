"""Conditional variational autoencoder of fields, bags and sequences, whose latents get a density after training.

Kingma and Welling 2014; the prior of the latent is a normal that follows the condition (Sohn et al. 2015, "Learning
structured output representation using deep conditional generative models"); the decoder's variances are fitted to the
data (Rybkin et al. 2021). Latents are parametrised by u (B, D), which is standard normal under the conditional prior.

Items of a catalogue are taken as bags (bags.py), and records of tokens as sequences (sequences.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Edit,
    Evaluations,
    Examples,
    Family,
    Latents,
    Likelihood,
    Loss,
    Modules,
    Objective,
    PlanHints,
    Policy,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.model import batch_of_fields
from afresh.core.rng import Rng
from afresh.core.solver_progress import step as tell
from afresh.core.space import evenly_spaced
from afresh.data.load import numbered
from afresh.families.vae.bags import BagObjective, Chosen, bag_terms, drawn_bags, next_predictor
from afresh.families.vae.config import VAEConfig, VAESettings
from afresh.families.vae.sequences import SequenceObjective, sequence_terms, written
from afresh.nets.bags import Bag, BagDecoder, BagEncoder
from afresh.nets.conditioning import Conditioning
from afresh.nets.conv import Decoder, Encoder
from afresh.nets.gaussian import SCALE_RATE, Prior, Scale, gaussian_nll
from afresh.nets.mixture import RequestMixture
from afresh.nets.posterior import decode, encoding, posterior_draw, standardised
from afresh.nets.sequences import (
    SequenceDecoder,
    Sequences,
    SequenceShape,
    sequence_networks,
    sequential,
)
from afresh.sampling.latent_search import search

RANK = 128  # of the fitted density's covariances, besides their diagonals
# Draws from posteriors that the density is fitted to: of at most so many examples, and of fewer up to 4 of each. More
# brought less than .2 nats.
FITTED = 4_000
FEWEST = 50  # examples of a class with a density of its own
DRAWS = 64  # posterior draws for an estimate of the likelihood
NEGATIVES = 1024  # of a catalogue with more than eight times as many items
SEEN_SELDOM = 40  # epochs
FEW_BAGS = 100_000  # of a run, with smaller batches
LARGE = 16  # cells of the shortest axis from which the finest grid is folded into channels
ROUNDS, SEARCH = 20, 100  # Gibbs rounds for filling a hole; optimisation steps of a search for latents


def accepts(space: Space) -> str | None:
    if sequential(space) or (space.catalogue and space.codes == 1):
        return None
    if space.catalogue:
        return "a VAE takes items as they are, and not by their codes, whose order counts; these go with transformer"
    if space.kind != "field":
        return (
            "a VAE models a field of real numbers, the items of a catalogue, or sequences that stand alone; other "
            "tokens go with transformer"
        )
    if not 2 <= len(space.shape) <= 4:
        return f"a VAE models channels over 1 to 3 axes; the shape here is {space.shape}"
    return None


def sizes(space: Space) -> Sequence[VAEConfig]:
    """From LARGE cells, the finest grid is folded into channels, and there are more latents with a lower weight of KL.

    Samples of large grids are blurred because latents hold too little of an image, and not because of the density that
    is fitted to the latents (docs/development/log.md). Networks over bags have one hidden layer, which is as wide as
    there are latents.
    """
    if space.catalogue:
        negatives = NEGATIVES if space.vocab[0] > 8 * NEGATIVES else 0
        fixed = {"beta": 0.2, "dropout": 0.5, "negatives": negatives}
        return [VAEConfig(width=w, latent=w, **fixed) for w in (64, 128, 256)]
    if sequential(space):
        fixed = {"latent": 64, "cond": 64, "beta": 0.1}
        ladder = ((96, 3), (128, 4), (192, 4), (256, 5), (320, 6), (384, 6), (512, 8))
        return [VAEConfig(width=width, blocks=blocks, **fixed) for width, blocks in ladder]
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
        for width, blocks in ((16, 1), (32, 1), (64, 1), (96, 2), (128, 3))
    ]


def examples_wanted(parameters: int, space: Space) -> int:
    """One example for every 4 parameters; on large grids, one for every 130.

    With a width of 32 on 8x8 digits that is 85,000, at which samples become good. On 64x64 drawn photographs, widths of
    16 and 32 were equal after 40 s of a core (6,400 and 4,200 examples), and 32 was better after 150 s (21,600 and
    26,800; docs/development/log.md). Three items for each parameter of a network over bags, as an item is seen seldom.
    """
    if space.catalogue:
        return 3 * parameters // space.shape[0]
    if sequential(space):
        return 2 * parameters // (5 * space.shape[0])  # half of them write, as those of the Transformer do
    return parameters // (4 if min(space.shape[1:]) < LARGE else 130)


def recipe(space: Space) -> dict[str, Any]:
    if space.catalogue:
        return {"optimizer": "adamw", "lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1, "decay": 0.5}
    if sequential(space):
        return {
            "optimizer": "muon",
            "lr": 3e-3,
            "matrix_lr": 0.02,
            "betas": (0.9, 0.95),
            "weight_decay": 0.1,
            "ema_half_life": 10_000,
        }
    return {
        "optimizer": "muon",
        "matrix_lr": 0.02,
        "lr": 2e-3,
        "betas": (0.9, 0.99),
        "weight_decay": 0.01,
        "warmup": 100,
        "decay": 0.5,
        "ema_half_life": 10_000,
        "clip": 1.0,
    }


def batch(examples: int, space: Space) -> int:
    """Of bags 64, and 256 in a run over many, whose steps cost as much for the weights as for the bags."""
    if space.catalogue:
        return 64 if examples < FEW_BAGS else 256
    if sequential(space):
        tokens = 512 * (max(1, examples * space.shape[0]) / 2e5) ** 0.6  # as the Transformer
        return 2 ** max(4, round(math.log2(max(1.0, tokens / space.shape[0]))))
    return batch_of_fields(examples, space)


def regime(epochs: float, steps: int, examples: int, space: Space) -> dict[str, float]:
    """Bags that are seen seldom are learnt at a higher rate, at which they are learnt by heart later
    (docs/development/log.md)."""
    return {"lr": 3e-3} if space.catalogue and epochs < SEEN_SELDOM else {}


def build(config: VAEConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """The networks, and the density of the latents."""
    c, vocab = config, space.vocab
    conditioning = Conditioning(conds, c.cond)
    encoder: nn.Module
    decoder: nn.Module
    if space.catalogue:
        encoder = BagEncoder(vocab[0], c.cond, c.latent, c.width)
        decoder = BagDecoder(vocab[0], set(space.special.values()), c.cond, c.latent, c.width)
    elif sequential(space):
        if c.latent % c.slots:
            raise UserError(f"`family.latent` ({c.latent}) must be a multiple of `family.slots` ({c.slots}).")
        pair = sequence_networks(space, SequenceShape(c.latent // c.slots, c.slots, c.width, c.blocks), c.cond)
        encoder, decoder = pair["encoder"], pair["decoder"]
    else:
        sizes = (space.shape, c.cond, c.latent, c.width, c.blocks, c.most, c.patch)
        encoder, decoder = Encoder(*sizes), Decoder(*sizes)
    return {
        "conditioning": conditioning,
        "encoder": encoder,
        "decoder": decoder,
        "prior": Prior(c.cond, c.latent),
        **({"scale": Scale(space.std)} if space.kind == "field" else {}),
        "density": RequestMixture(conds, c.components, c.latent, RANK),
    }


class VAEObjective:
    """-ELBO = -log p(x | z) + beta KL(q(z | x, c) || p(z | c)), in nats for each example, with one draw of z.

    The gradient of sigma is computed separately and divided by the size of the field. Otherwise it would dominate those
    of the networks when gradients are clipped. The value of the loss is still that of the bound. The fitted density is
    not part of the loss.
    """

    players: Mapping[str, tuple[str, ...]] = {
        "model": ("conditioning", "encoder", "decoder", "prior", "scale", "density")
    }
    averaged = ("conditioning", "encoder", "decoder", "prior", "scale")

    def __init__(self, config: VAEConfig, space: Space) -> None:
        self.config, self.dims = config, math.prod(space.shape)

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


# --------------------------------------------------------------------------- the density of latents


@torch.no_grad()
def finish(modules: Modules, config: VAEConfig, space: Space, examples: Examples, rng: Rng) -> Mapping[str, Tensor]:
    """Fits mixtures to the latents of training examples, {"density.NAME": tensor}; empty for fewer than 10 examples.

    Ghosh et al. 2020 ("From variational to deterministic autoencoders", sec. 4). The mixtures are fitted to draws from
    the posterior instead of its means, since samples should follow the aggregate posterior, the mean of q(u | x) over
    examples, and the decoder was trained on such draws. Mixtures fitted to the means would be narrower, and with more
    components they would approach copies of the examples.
    """
    density, (n, batch_of) = modules["density"], numbered(examples, space)
    assert isinstance(density, RequestMixture)
    if n < 10:
        return {}
    rows = evenly_spaced(n, FITTED)
    batches = [batch_of(block) for block in rows.split(256)]
    cond, draws = Cond.cat([b.cond for b in batches]), max(1, min(4, FITTED // len(rows)))
    unconditional = posterior_draws(
        modules, config, space, [replace(b, cond=b.cond.null()) for b in batches], draws, rng
    )
    conditional = posterior_draws(modules, config, space, batches, draws, rng) if cond.parts else unconditional
    seed = int(rng.bits("vae/density", torch.zeros(1, dtype=torch.int64))) % 2**31
    buffers = density.fitted(unconditional, conditional, cond, max(FEWEST, density.dim), seed)
    return {f"density.{k}": v for k, v in buffers.items()}


def observed(batch: Batch, space: Space) -> Tensor | Bag | Sequences:
    """What the encoder reads of a batch."""
    if space.catalogue:
        return Chosen.of(batch, space).bag()
    return Sequences.of(batch) if sequential(space) else batch.x


def posterior_draws(
    modules: Modules, config: VAEConfig, space: Space, batches: Sequence[Batch], draws: int, rng: Rng
) -> Any:
    """S posterior draws of u for the N examples of the batches: (S, N, D), float64."""
    density, parts = modules["density"], []
    assert isinstance(density, RequestMixture)
    device = density.get_buffer("mean").device
    for batch in (b.to(device) for b in batches):
        x = observed(batch, space)
        mean, log_var = standardised(modules, encoding(modules, x, batch.cond))
        each = []
        for s in range(draws):
            noise = rng.normal(f"vae/density/{s}", batch.index, (config.latent,))
            each.append(mean + (0.5 * log_var).exp() * noise)
        parts.append(torch.stack(each))
    return torch.cat(parts, 1).cpu().double().numpy()


def prior_draw(
    modules: Modules, config: VAEConfig, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """Draws u (n, D) from the prior of the settings, keyed by `index`."""
    u = rng.normal("sample/noise", index, (config.latent,))
    if settings.prior == "normal":
        return u * settings.truncation
    density = modules["density"]
    assert isinstance(density, RequestMixture)
    row, centre = density.row(cond), density.centre(density.row(cond))
    pick, along = rng.uniform("sample/pick", index), rng.normal("sample/along", index, (density.rank,))
    return centre + settings.truncation * (density.draw(row, pick, u, along) - centre)


def draw(
    modules: Modules, config: VAEConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """The decoder's mean (n, *space.shape) for latents drawn from the prior; differentiable in the weights. Raises
    UserError for bags and sequences, whose tokens are drawn."""
    if space.kind == "tokens":
        raise UserError("Tokens are drawn, and a draw has no gradient. Use a method that compares or selects samples.")
    with torch.no_grad():
        u = prior_draw(modules, config, cond, rng, index, settings)
    return decode(modules, u, cond, settings.guidance)


@torch.no_grad()
def sample(
    modules: Modules, config: VAEConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """(n, *space.shape): the decoder's mean for latents drawn from the prior; the bags of `drawn_bags`; or sequences
    (n, T) that are `written`."""
    if space.kind == "field":
        return draw(modules, config, space, cond, rng, index, settings)
    u = prior_draw(modules, config, cond, rng, index, settings)
    make = drawn_bags if space.catalogue else written
    return make(modules, space, u, cond, rng, index, settings)


# --------------------------------------------------------------------------- likelihood


def elbo(modules: Modules, config: VAEConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """The lower bound of log p(x | condition) with one draw of z, (B,), in nats; of bags, given the known items."""
    noise = rng.normal("vae/score", batch.index, (config.latent,))
    if space.catalogue:
        nats, kl, _ = bag_terms(modules, space, batch, noise)
        return -nats - kl
    if sequential(space):
        nats, divergence, _ = sequence_terms(modules, space, batch, noise)
        return -nats - divergence.sum(1)
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
    read = Sequences.whole(x, space.special["end"]) if sequential(space) else x
    return standardised(modules, encoding(modules, read, cond))[0]


@torch.no_grad()
def decode_latents(
    modules: Modules, config: VAEConfig, space: Space, u: Tensor, cond: Cond, settings: VAESettings
) -> Tensor:
    """The decoder's mean (B, *space.shape) for u (B, D); of sequences (B, T) the likeliest token each time."""
    if sequential(space):
        likeliest = settings.model_copy(update={"temperature": 0.0})
        return written(modules, space, u, cond, Rng(0), torch.arange(len(u), device=u.device), likeliest)
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
    UserError for `keep` without `start`, and for bags.
    """
    if space.catalogue:
        raise UserError("Items are not edited. Give those that are known as a prompt, and others are drawn with them.")
    start, s = task.start, task.strength
    if sequential(space):
        return rewritten(modules, config, space, task, cond, rng, index, settings)
    u = prior_draw(modules, config, cond, rng, index, settings)
    if start is None:
        if task.keep is not None:
            raise UserError("`keep` marks the values of `start` that must not change: give `start` as well.")
        return decode(modules, _optimised(modules, task, u, cond, settings), cond, settings.guidance)
    if s == 0:
        return start.clone()
    mean = encode(modules, config, space, start, cond, settings)
    u = math.sqrt(1 - s * s) * mean + s * u
    if task.keep is None:
        u = _optimised(modules, task, u, cond, settings)
        residual = start - decode(modules, mean, cond)
        return decode(modules, u, cond, settings.guidance) + (1 - s) * residual
    rounds = math.ceil(ROUNDS * s)
    for k in range(rounds):
        x = torch.where(task.keep, start, decode(modules, u, cond, settings.guidance))
        tell(k, rounds, partial(torch.clone, x))
        u = posterior_draw(modules, encoding(modules, x, cond), rng.normal(f"edit/{k}", index, (u.shape[1],))).u
    u = _optimised(modules, task, u, cond, settings)
    return torch.where(task.keep, start, decode(modules, u, cond, settings.guidance))


def rewritten(
    modules: Modules,
    config: VAEConfig,
    space: Space,
    task: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: VAESettings,
) -> Tensor:
    """`edit` for sequences (B, T): written from u of `strength`; those of strength 0 stay as they are. Raises UserError
    for anything else that an edit may ask for."""
    if task.start is None or task.keep is not None or task.energy is not None:
        raise UserError("Sequences are edited by `strength` alone. Leave the rest out.")
    if task.strength == 0:
        return task.start.clone()
    mean = encode(modules, config, space, task.start, cond, settings)
    s = task.strength
    u = math.sqrt(1 - s * s) * mean + s * prior_draw(modules, config, cond, rng, index, settings)
    return written(modules, space, u, cond, rng, index, settings)


def _optimised(modules: Modules, task: Edit, u: Tensor, cond: Cond, settings: VAESettings) -> Tensor:
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


def objective(config: VAEConfig, space: Space) -> Objective:
    if sequential(space):
        return SequenceObjective(config, space)
    return (BagObjective if space.catalogue else VAEObjective)(config, space)


def regions(modules: Modules, device: str) -> Sequence[nn.Module]:
    """Both networks, but not those over sequences, whose states are asked for and not their output."""
    pair = [modules["encoder"], modules["decoder"]]
    return [] if isinstance(modules["decoder"], SequenceDecoder) else pair


FAMILY = Family(
    name="vae",
    accepts=accepts,
    config=VAEConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        batch=batch,
        recipe=recipe,
        regime=regime,
        regions=regions,
    ),
    build=build,
    objective=objective,
    sampling=Sampling(VAESettings, sample),
    # The held-out bound rises long before samples become worse (docs/development/log.md).
    likelihood=Likelihood(
        score,
        density=likelihood,
        bound=True,
        selects=False,
        method=f"importance-weighted lower bound of {DRAWS} draws",
    ),
    predict_next=next_predictor,
    finish=finish,
    latents=Latents(encode, decode_latents),
    edit=edit,
    evaluations=Evaluations(
        edit=lambda space, settings, keep: 3 * ROUNDS + SEARCH if keep else SEARCH,
        score=lambda space: 2 * DRAWS if space.kind == "field" else 1,
    ),
    policy=Policy(("conditioning", "encoder", "decoder", "prior"), score=elbo, draw=draw, fits=True),
)
