"""The VAE of sequences: records of tokens that stand alone, such as molecules, decoded token by token.

The decoder is an autoregressive Transformer that is given z (Bowman et al. 2016, "Generating sentences from a
continuous space"). The weight of the KL term is controlled (Shao et al. 2020, "ControlVAE") so that this term is a
given share of all nats of a sequence: the decoder neither ignores z nor leaves everything to it.
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
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.options import ANY
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_LAYERS
from afresh.core.state import state_number
from afresh.engine.families.vae.latents import METHOD, VAESettings, fit_density, mixture, prior_draw
from afresh.engine.nets.conditioning import Conditioning
from afresh.engine.nets.gaussian import Prior
from afresh.engine.nets.posterior import encoding, latent, standardised
from afresh.engine.nets.sequences import (
    SequenceDecoder,
    Sequences,
    SequenceShape,
    drop_tokens,
    sequence_networks,
    sequential,
)
from afresh.engine.nets.transformer import TOKEN_RECIPE, token_batch
from afresh.engine.sampling.sequences import write

CONTROL, HEAVY = 0.1, 10.0  # how fast the weight of the divergence changes, and the most that it can be
SHARE = 0.25  # of the divergence in all nats of a sequence, from 0 (the decoder alone determines it) to 1 (z does)
SLOTS = 4  # positions that the latents are divided into


class SequenceVAEConfig(BaseModel):
    """Of records of tokens, such as molecules: `width` of both Transformers, and `blocks` of the one that writes; the
    one that reads has half as many. `latent`: number of latents, a multiple of four. `beta`: the least weight of the KL
    term, which is controlled. `components`: most Gaussians of the density fitted to the latents. `dropout`: share of
    the tokens before the next one that the decoder is not shown in training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=1, ge=1, le=MOST_LAYERS)
    latent: int = Field(default=32, ge=1)
    cond: int = Field(default=64, ge=1)  # width of the condition's vector
    beta: float = Field(default=1.0, ge=0)
    components: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


def accepts(space: Space) -> str | None:
    if sequential(space):
        return None
    return (
        "a VAE models a field of real numbers, the items of a catalogue, or sequences that stand alone; other tokens "
        "go with transformer"
    )


def sizes(space: Space) -> Sequence[SequenceVAEConfig]:
    fixed = {"latent": 64, "cond": 64, "beta": 0.1}
    ladder = ((96, 3), (128, 4), (192, 4), (256, 5), (320, 6), (384, 6), (512, 8))
    return [SequenceVAEConfig(width=width, blocks=blocks, **fixed) for width, blocks in ladder]


def examples_wanted(parameters: int, space: Space) -> int:
    """0.8 tokens for each parameter of the half that writes, as of the Transformer."""
    return 2 * parameters // (5 * space.shape[0])


def batch(examples: int, space: Space) -> int:
    """As many tokens as the Transformer takes, but at least 16 sequences."""
    return max(16, token_batch(examples, space))


def build(config: SequenceVAEConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """The networks, and the density of the latents. Raises UserError if the latents cannot be divided."""
    c = config
    if c.latent % SLOTS:
        raise UserError(f"`family.latent` ({c.latent}) must be a multiple of {SLOTS}.")
    conditioning = Conditioning(conds, c.cond)
    return {
        "conditioning": conditioning,
        **sequence_networks(space, SequenceShape(c.latent // SLOTS, SLOTS, c.width, c.blocks), c.cond),
        "prior": Prior(c.cond, c.latent),
        "density": mixture(conds, c.components, c.latent),
    }


def sequence_terms(
    modules: Modules, space: Space, batch: Batch, noise: Tensor, drop: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """-log p(x | z) for one draw of z, (B,), the divergence of its posterior, (B, D), and the number of predicted
    tokens, (B,). `drop` (B, T): which tokens the decoder is not shown."""
    decoder, tokens, targets = modules["decoder"], batch.x[:, :-1], batch.x[:, 1:]
    assert isinstance(decoder, SequenceDecoder)
    if batch.mask is not None:
        targets = targets.masked_fill(~batch.mask, -1)
    encoded = encoding(modules, Sequences.of(batch), batch.cond)
    z, kl = latent(modules, encoded, noise)
    shown = tokens if drop is None else drop_tokens(tokens, drop, decoder.filler)
    return decoder.nats(decoder.divided(z), encoded.c, shown, targets).sum(1), kl, (targets >= 0).sum(1)


class SequenceObjective:
    """-log p(x | z) + beta KL(q(z | x, c) || p(z | c)) with one draw of z, in nats; the weight is the number of tokens.

    The decoder is not shown a share `dropout` of the tokens.
    """

    players: Mapping[str, tuple[str, ...]] = {"model": ("conditioning", "encoder", "decoder", "prior", "density")}
    averaged = ("conditioning", "encoder", "decoder", "prior")

    def __init__(self, config: SequenceVAEConfig, space: Space) -> None:
        self.config, self.space = config, space

    def beta(self, state: State) -> float:
        """The current weight of the divergence."""
        return state_number(state, "beta", 0, HEAVY) if "beta" in state else self.config.beta

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        c, drop, beta = self.config, None, self.beta(state)
        noise = rng.normal("vae/latent", batch.index, (c.latent,))
        if c.dropout and torch.is_grad_enabled():  # not in evaluation
            drop = rng.uniform("vae/dropout", batch.index, (batch.x.shape[1] - 1,)) < c.dropout
        nats, kl, tokens = sequence_terms(modules, self.space, batch, noise, drop)
        total = nats + beta * kl.sum(1)
        metrics = {"loss": nats + kl.sum(1), "nats": nats, "kl": kl.sum(1), "beta": beta * tokens}
        return total.sum(), tokens.sum(), {k: v.detach().sum() for k, v in metrics.items()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        """Makes the divergence heavier while it is more than SHARE of all nats, and lighter while it is less, but
        not lighter than at first."""
        excess = metrics["kl"] / max(metrics["kl"] + metrics["nats"], 1e-6) - SHARE
        beta = self.beta(state) * math.exp(CONTROL * max(-1.0, min(1.0, excess)))
        return {**state, "beta": torch.tensor(min(HEAVY, max(self.config.beta, beta)))}


def write_latents(
    modules: Modules, space: Space, u: Tensor, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """Sequences (n, T) int64 of the latents u (n, D), which continue cond.known, if there are known tokens."""
    decoder = modules["decoder"]
    assert isinstance(decoder, SequenceDecoder)
    c = modules["conditioning"](cond)
    mean, log_var = modules["prior"](c)
    z = mean + (0.5 * log_var).exp() * u
    if settings.guidance != 1:
        null = modules["conditioning"](cond.negative_or_null())
        c = null + settings.guidance * (c - null)
    return write(decoder, z, c, space, cond, rng, index, settings.cut, settings.length, settings.watermark)


@torch.no_grad()
def sample(
    modules: Modules,
    config: SequenceVAEConfig,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: VAESettings,
) -> Tensor:
    """Sequences (n, T) int64, written from latents that are drawn from the prior."""
    return write_latents(modules, space, prior_draw(modules, cond, rng, index, settings), cond, rng, index, settings)


def elbo(modules: Modules, config: SequenceVAEConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """The lower bound of log p(x | condition) with one draw of z, (B,), in nats."""
    nats, divergence, _ = sequence_terms(modules, space, batch, rng.normal("vae/score", batch.index, (config.latent,)))
    return -nats - divergence.sum(1)


@torch.no_grad()
def encode(
    modules: Modules, config: SequenceVAEConfig, space: Space, x: Tensor, cond: Cond, settings: VAESettings
) -> Tensor:
    """The posterior's mean as u (B, D), in which the conditional prior is standard normal."""
    return standardised(modules, encoding(modules, Sequences.whole(x, space.special["end"]), cond))[0]


@torch.no_grad()
def decode_latents(
    modules: Modules, config: SequenceVAEConfig, space: Space, u: Tensor, cond: Cond, settings: VAESettings
) -> Tensor:
    """Sequences (B, T) of the likeliest token each time, for u (B, D)."""
    likeliest = settings.model_copy(update={"temperature": 0.0})
    return write_latents(modules, space, u, cond, Rng(0), torch.arange(len(u), device=u.device), likeliest)


@torch.no_grad()
def edit(
    modules: Modules,
    config: SequenceVAEConfig,
    space: Space,
    task: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: VAESettings,
) -> Tensor:
    """Sequences (B, T) written from u = sqrt(1 - s^2) E[u | start] + s u' of the strength s, with u' from the prior;
    those of strength 0 stay as they are. Raises UserError for anything else that an edit may ask for."""
    if task.start is None or task.keep is not None or task.energy is not None:
        raise UserError("Sequences are edited by `strength` alone. Leave the rest out.")
    if task.strength == 0:
        return task.start.clone()
    mean = encode(modules, config, space, task.start, cond, settings)
    s = task.strength
    u = math.sqrt(1 - s * s) * mean + s * prior_draw(modules, cond, rng, index, settings)
    return write_latents(modules, space, u, cond, rng, index, settings)


FAMILY = Family(
    name="vae",
    accepts=accepts,
    config=SequenceVAEConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        batch=batch,
        recipe=lambda space: {**TOKEN_RECIPE, "ema_half_life": 10_000},
        regions=lambda modules, device: [],  # the states of both networks are asked for, and not their output
    ),
    build=build,
    objective=SequenceObjective,
    sampling=Sampling(VAESettings, sample),
    # The held-out bound rises long before samples become worse (docs/development/log.md).
    likelihood=Likelihood(torch.no_grad()(elbo), bound=True, selects=False, method=METHOD),
    finish=partial(fit_density, read=lambda batch, space: Sequences.of(batch)),
    latents=Latents(encode, decode_latents),
    edit=edit,
    evaluations=Evaluations(edit=lambda space, settings, keep: 2),
    policy=Policy(("conditioning", "encoder", "decoder", "prior"), score=elbo, fits=True),
    retired={"most": ANY, "patch": ANY, "negatives": ANY, "slots": SLOTS, "share": SHARE},
    how="draws from a small code",
)
