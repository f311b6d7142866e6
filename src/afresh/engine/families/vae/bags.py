"""The VAE of bags: the items of a catalogue that belong together, in no order.

They are drawn from one distribution over the catalogue, which the decoder makes of z (Liang et al. 2018, "Variational
autoencoders for collaborative filtering").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Family,
    Likelihood,
    Loss,
    Modules,
    PlanHints,
    Policy,
    Predict,
    Sampling,
    Space,
    State,
)
from afresh.core.device import tensor_on
from afresh.core.options import ANY
from afresh.core.rng import Rng
from afresh.engine.families.vae.latents import METHOD, VAESettings, fit_density, mixture, prior_draw
from afresh.engine.nets.bags import Bag, BagDecoder, BagEncoder, bag_nats
from afresh.engine.nets.conditioning import Conditioning
from afresh.engine.nets.gaussian import Prior
from afresh.engine.nets.posterior import decode, encoding, latent, standardised

NEGATIVES = 1024  # of a catalogue with more than eight times as many items
SEEN_SELDOM = 40  # epochs
FEW_BAGS = 100_000  # of a run, with smaller batches


class BagVAEConfig(BaseModel):
    """Of the items of a catalogue: `width` of the one hidden layer of each network. `latent`: number of latents.
    `beta`: weight of the KL term. `components`: most Gaussians of the density fitted to the latents. `dropout`: share
    of a bag's items that the encoder is not shown in training. `negatives`: items that represent the others of the
    catalogue in a step, 0 = all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=32, ge=1)
    latent: int = Field(default=32, ge=1)
    cond: int = Field(default=64, ge=1)  # width of the condition's vector
    beta: float = Field(default=1.0, ge=0)
    components: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    negatives: int = Field(default=0, ge=0)


def sizes(space: Space) -> Sequence[BagVAEConfig]:
    """Networks with one hidden layer, which is as wide as there are latents."""
    fixed = {"beta": 0.2, "dropout": 0.5, "negatives": (NEGATIVES if space.vocab[0] > 8 * NEGATIVES else 0)}
    return [BagVAEConfig(width=w, latent=w, **fixed) for w in (64, 128, 256)]


def examples_wanted(parameters: int, space: Space) -> int:
    """Three items for each parameter, as an item is seen seldom."""
    return 3 * parameters // space.shape[0]


def batch(examples: int, space: Space) -> int:
    """64, and 256 in a run over many bags, whose steps cost as much for the weights as for the bags."""
    return 64 if examples < FEW_BAGS else 256


def regime(epochs: float, steps: int, examples: int, space: Space) -> dict[str, float]:
    """Bags that are seen seldom are learnt at a higher rate, at which they are learnt by heart later
    (docs/development/log.md)."""
    return {"lr": 3e-3} if epochs < SEEN_SELDOM else {}


def build(config: BagVAEConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """The networks, and the density of the latents."""
    c, vocab = config, space.vocab[0]
    return {
        "conditioning": Conditioning(conds, c.cond),
        "encoder": BagEncoder(vocab, c.cond, c.latent, c.width),
        "decoder": BagDecoder(vocab, set(space.special.values()), c.cond, c.latent, c.width),
        "prior": Prior(c.cond, c.latent),
        "density": mixture(conds, c.components, c.latent),
    }


@dataclass(frozen=True)
class Chosen:
    """The items of a batch of bags: tokens (B, L), and which are to be predicted or known before, (B, L) bool.

    Where nothing is known before, z is inferred from the items that are predicted, as in any VAE. Elsewhere it is drawn
    from the posterior given the known items, which is then the prior of the others: nothing diverges from it.
    """

    tokens: Tensor
    counted: Tensor
    known: Tensor

    @staticmethod
    def of(batch: Batch, space: Space) -> Chosen:
        """The token before a window is not looked at."""
        tokens = batch.x[:, 1:]
        counted = known = is_item(tokens, space)
        if batch.mask is not None:
            counted, known = counted & batch.mask, known & ~batch.mask
        else:
            known = torch.zeros_like(counted)
        return Chosen(tokens, counted, known)

    @property
    def inferred(self) -> Tensor:
        """Whether nothing is known before, (B,)."""
        return ~self.known.any(1)

    def bag(self, keep: Tensor | None = None) -> Bag:
        """What z is inferred from. `keep` (B, L): factors of the items that are predicted themselves."""
        itself = self.inferred[:, None]
        factor = None if keep is None else torch.where(itself, keep, 1.0)
        return Bag.of(self.tokens, torch.where(itself, self.counted, self.known), factor)


def is_item(tokens: Tensor, space: Space) -> Tensor:
    """Whether tokens are items, and no special tokens."""
    return ~torch.isin(tokens, tensor_on(tokens.device, sorted(set(space.special.values()))))


def bag_terms(
    modules: Modules,
    space: Space,
    batch: Batch,
    noise: Tensor,
    keep: Tensor | None = None,
    negatives: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """-log p(x | z) for one draw of z, the divergence of its posterior, and the number of predicted items, (B,).

    `negatives`: items that represent those that are not of a bag; None: all do.
    """
    chosen, decoder = Chosen.of(batch, space), modules["decoder"]
    assert isinstance(decoder, BagDecoder)
    encoded = encoding(modules, chosen.bag(keep), batch.cond)
    z, kl = latent(modules, encoded, noise)
    if negatives is None:
        nats = bag_nats(decoder(z, encoded.c), chosen.tokens, chosen.counted)
    else:
        nats = decoder.sampled_nats(z, encoded.c, chosen.tokens, chosen.counted, negatives)
    return nats, kl.sum(1) * chosen.inferred, chosen.counted.sum(1)


class BagObjective:
    """-log p(x | z) + beta KL(q(z | x, c) || p(z | c)) with one draw of z, in nats; the weight is the number of items.

    The encoder is not shown a share `dropout` of the items that it infers z from, and the others count for more.
    """

    players: Mapping[str, tuple[str, ...]] = {"model": ("conditioning", "encoder", "decoder", "prior", "density")}
    averaged = ("conditioning", "encoder", "decoder", "prior")

    def __init__(self, config: BagVAEConfig, space: Space) -> None:
        self.config, self.space = config, space

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        noise, share = rng.normal("vae/latent", batch.index, (self.config.latent,)), self.config.dropout
        keep = None
        if share:
            shown = rng.uniform("vae/dropout", batch.index, (batch.x.shape[1] - 1,)) >= share
            keep = shown.float() / (1 - share)
        nats, kl, items = bag_terms(modules, self.space, batch, noise, keep, self.negatives(rng, step, batch.x.device))
        total = (nats + self.config.beta * kl).sum()
        return total, items.sum(), {"loss": (nats + kl).detach().sum(), "kl": kl.detach().sum()}

    def negatives(self, rng: Rng, step: int, device: torch.device) -> Tensor | None:
        """The items (n,) that represent the catalogue in a step, whatever the division of its batch."""
        if not self.config.negatives:
            return None
        special = sorted(set(self.space.special.values()))
        size = self.space.vocab[0] - len(special)
        drawn = rng.uniform("negatives", torch.full((1,), step, device=device), (self.config.negatives,))[0] * size
        items = drawn.long().clamp_max(size - 1)
        for token in special:  # these are no items
            items = items + (items >= token)
        return items

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


@torch.no_grad()
def sample(
    modules: Modules, config: BagVAEConfig, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings
) -> Tensor:
    """Bags (n, T) int64: items drawn one after the other without replacement, by adding Gumbel noise (Kool et al.
    2019). Known items are continued: z is then drawn from the posterior given them, and none of them is drawn again.
    Rows with fewer items are padded with `end`.
    """
    u = prior_draw(modules, cond, rng, index, settings)
    known = inside = torch.zeros(cond.size, 0, dtype=torch.int64, device=u.device)
    if cond.known is not None:
        known, inside = cond.known, is_item(cond.known, space)
        inside = inside if cond.known_mask is None else inside & cond.known_mask
        mean, log_var = standardised(modules, encoding(modules, Bag.of(known, inside), cond))
        noise = rng.normal("sample/known", index, u.shape[1:])
        some = mean + settings.truncation * (0.5 * log_var).exp() * noise
        u = torch.where(inside.any(1)[:, None], some, u)
    logs = decode(modules, u, cond, settings.guidance)
    uniform = rng.uniform("sample/items", index, (logs.shape[1],)).clamp(1e-7, 1 - 1e-7)
    logs = logs - (-uniform.log()).log()
    end = space.special["end"]
    logs = logs.scatter(1, known.masked_fill(~inside.bool(), end), -math.inf)
    first = logs.topk(min(settings.length, space.shape[0], logs.shape[1]), 1)
    return first.indices.masked_fill(first.values == -math.inf, end)


def elbo(modules: Modules, config: BagVAEConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """The lower bound of log p(x | condition, known items) with one draw of z, (B,), in nats."""
    nats, kl, _ = bag_terms(modules, space, batch, rng.normal("vae/score", batch.index, (config.latent,)))
    return -nats - kl


def next_predictor(modules: Modules, space: Space) -> Predict:
    """A Predict of the log-probabilities (B, V) of the item after the first t[b] (None: all) of x (B, T), by the mean
    of the posterior of z given them."""

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        inside = is_item(x, space)
        if t is not None:
            inside = inside & (torch.arange(x.shape[1], device=x.device) < t[:, None])
        encoded = encoding(modules, Bag.of(x, inside), cond)
        return modules["decoder"](encoded.mean, encoded.c), None

    return predict


def read(batch: Batch, space: Space) -> Bag:
    """The items that z is inferred from."""
    return Chosen.of(batch, space).bag()


FAMILY = Family(
    name="vae",
    accepts=lambda space: None if space.catalogue else "this is the record of catalogues",
    config=BagVAEConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        batch=batch,
        recipe=lambda space: {
            "optimizer": "adamw",
            "lr": 1e-3,
            "betas": (0.9, 0.99),
            "weight_decay": 0.1,
            "decay": 0.5,
        },
        regime=regime,
        regions=lambda modules, device: [modules["encoder"], modules["decoder"]],
    ),
    build=build,
    objective=BagObjective,
    sampling=Sampling(VAESettings, sample),
    # The held-out bound rises long before samples become worse (docs/development/log.md).
    likelihood=Likelihood(torch.no_grad()(elbo), bound=True, selects=False, method=METHOD),
    predict_next=next_predictor,
    finish=partial(fit_density, read=read),
    policy=Policy(("conditioning", "encoder", "decoder", "prior"), score=elbo, fits=True),
    retired={"blocks": ANY, "most": ANY, "patch": ANY, "slots": ANY, "share": ANY},
    how="draws from a small code",
)
