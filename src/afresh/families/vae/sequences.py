"""The VAE of sequences: records of tokens that stand alone, such as molecules, decoded token by token.

The decoder is an autoregressive Transformer that is given z (Bowman et al. 2016, "Generating sentences from a
continuous space"). The weight of the KL term is controlled (Shao et al. 2020, "ControlVAE") so that this term is a
given share of all nats of a sequence: the decoder neither ignores z nor leaves everything to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from afresh.core import Batch, Cond, Loss, Modules, Space, State
from afresh.core.rng import Rng
from afresh.core.state import state_number
from afresh.families.vae.config import VAEConfig, VAESettings
from afresh.nets.posterior import encoding, latent
from afresh.nets.sequences import SequenceDecoder, Sequences, dropped
from afresh.sampling.sequences import write

CONTROL, HEAVY = 0.1, 10.0  # how fast the weight of the divergence changes, and the most that it can be


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
    shown = tokens if drop is None else dropped(tokens, drop, decoder.filler)
    nats = decoder.nats(decoder.divided(z), encoded.c, shown, targets).sum(1)
    return nats, kl, (targets >= 0).sum(1)


def written(
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
    return write(decoder, z, c, space, cond, rng, index, settings.cut, settings.length)


class SequenceObjective:
    """-log p(x | z) + beta KL(q(z | x, c) || p(z | c)) with one draw of z, in nats; the weight is the number of tokens.

    The decoder is not shown a share `dropout` of the tokens.
    """

    players: Mapping[str, tuple[str, ...]] = {"model": ("conditioning", "encoder", "decoder", "prior", "density")}
    averaged = ("conditioning", "encoder", "decoder", "prior")

    def __init__(self, config: VAEConfig, space: Space) -> None:
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
        """Makes the divergence heavier while it is more than its `share` of all nats, and lighter while it is less, but
        not lighter than at first."""
        excess = metrics["kl"] / max(metrics["kl"] + metrics["nats"], 1e-6) - self.config.share
        beta = self.beta(state) * math.exp(CONTROL * max(-1.0, min(1.0, excess)))
        return {**state, "beta": torch.tensor(min(HEAVY, max(self.config.beta, beta)))}
