"""What the VAEs of fields, bags and sequences share: settings of sampling, and the density of the latents.

Latents are parametrised by u (B, D), which is standard normal under the conditional prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from afresh.core import Batch, Cond, CondSpec, Examples, Modules, Space
from afresh.core.rng import Rng
from afresh.core.space import evenly_spaced
from afresh.data.load import numbered
from afresh.engine.nets.bags import Bag
from afresh.engine.nets.example_density import BANDWIDTH, ExampleDensity
from afresh.engine.nets.mixture import RequestMixture
from afresh.engine.nets.posterior import encoding, standardised
from afresh.engine.nets.sequences import Sequences
from afresh.engine.sampling.tokens import Cut
from afresh.services.watermark.watermark import Watermark

RANK = 128  # of the fitted density's covariances, besides their diagonals
# Draws from posteriors that the density is fitted to: of at most so many examples, and of fewer up to 4 of each. More
# brought less than .2 nats.
FITTED = 4_000
FEWEST = 50  # examples of a class with a density of its own

METHOD = "lower bound with one draw of the latents"  # of the likelihood of tokens

Read = Callable[[Batch, Space], Tensor | Bag | Sequences]  # what an encoder reads of a batch


class VAESettings(BaseModel):
    """Options of sampling.

    `prior`: draw latents from the density that was fitted to them after training (fitted), or from the normal prior of
    training (normal). `truncation` scales their distance from the prior's mean (1 = as drawn): smaller values give more
    typical and less diverse samples.

    `guidance` g moves the decoder's condition vector from the learned null c0 to c0 + g (c - c0); 1 = as trained.
    Larger values follow labels more closely, at the cost of diversity. Little diversity is left at 3, the largest
    value.

    `length`: number of items of a bag, or most tokens of a sequence, at most as many as a window has; fields always
    have all their values. `temperature`, `top_k`, `top_p` and `min_p`: how tokens of a sequence are drawn, which
    `watermark` marks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    prior: Literal["fitted", "normal"] = "fitted"
    truncation: float = Field(default=1.0, ge=0, le=1)
    guidance: float = Field(default=1.0, ge=0, le=3)
    length: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=10)  # 0 = the likeliest token
    top_k: int = Field(default=0, ge=0)  # only the k likeliest; 0 = all
    top_p: float = Field(default=1.0, gt=0, le=1)  # only the likeliest that make up p
    min_p: float = Field(default=0.0, ge=0, le=1)  # only those p times as likely as the best
    watermark: Watermark | None = Field(default=None, exclude=True)

    @property
    def cut(self) -> Cut:
        return Cut(self.temperature, self.top_k, self.top_p, self.min_p)


def mixture(conds: CondSpec, components: int, latent: int) -> RequestMixture:
    """The density of the latents, with at most so many Gaussians for a request."""
    return RequestMixture(conds, components, latent, RANK)


@torch.no_grad()
def fit_density(
    modules: Modules, config: Any, space: Space, examples: Examples, rng: Rng, read: Read
) -> Mapping[str, Tensor]:
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
    alone = [replace(b, cond=b.cond.null()) for b in batches]
    unconditional = posterior_draws(modules, space, alone, draws, rng, read)
    conditional = posterior_draws(modules, space, batches, draws, rng, read) if cond.parts else unconditional
    seed = int(rng.bits("vae/density", torch.zeros(1, dtype=torch.int64))) % 2**31
    buffers = density.fitted(unconditional, conditional, cond, max(FEWEST, density.dim), seed)
    fitted = {f"density.{k}": v for k, v in buffers.items()}
    examples_density = modules.get("examples")
    if isinstance(examples_density, ExampleDensity) and n <= examples_density.most:
        z = torch.cat([encoding(modules, read(b, space), b.cond).mean for b in alone])
        own = examples_density.fitted(modules["conditioning"], z, [b.cond for b in batches])
        fitted |= {f"examples.{k}": v for k, v in own.items()}
    return fitted


def posterior_draws(
    modules: Modules,
    space: Space,
    batches: Sequence[Batch],
    draws: int,
    rng: Rng,
    read: Read,
) -> Any:
    """S posterior draws of u for the N examples of the batches: (S, N, D), float64."""
    density, parts = modules["density"], []
    assert isinstance(density, RequestMixture)
    device = density.get_buffer("mean").device
    for batch in (b.to(device) for b in batches):
        mean, log_var = standardised(modules, encoding(modules, read(batch, space), batch.cond))
        each = []
        for s in range(draws):
            noise = rng.normal(f"vae/density/{s}", batch.index, (density.dim,))
            each.append(mean + (0.5 * log_var).exp() * noise)
        parts.append(torch.stack(each))
    return torch.cat(parts, 1).cpu().double().numpy()


def prior_draw(modules: Modules, cond: Cond, rng: Rng, index: Tensor, settings: VAESettings) -> Tensor:
    """Draws u (n, D) from the prior of the settings, keyed by `index`."""
    density = modules["density"]
    assert isinstance(density, RequestMixture)
    u = rng.normal("sample/noise", index, (density.dim,))
    if settings.prior == "normal":
        return u * settings.truncation
    pick = rng.uniform("sample/pick", index)
    examples = modules.get("examples")
    if isinstance(examples, ExampleDensity) and examples.count:
        weights = examples.weights(modules["conditioning"], cond)
        mean, log_var = modules["prior"](modules["conditioning"](cond))
        own = (examples.draw(weights, pick), examples.centre(weights))
        near, centre = ((z - mean) * (-0.5 * log_var).exp() for z in own)
        return centre + settings.truncation * (near + BANDWIDTH * u - centre)
    row, centre = density.row(cond), density.centre(density.row(cond))
    along = rng.normal("sample/along", index, (density.rank,))
    return centre + settings.truncation * (density.draw(row, pick, u, along) - centre)
