"""Sizes and options of the VAE, for all that it models: fields, bags and sequences."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from afresh.core.safe_json import MOST_LAYERS
from afresh.sampling.tokens import Cut


class VAEConfig(BaseModel):
    """Sizes of both networks, and options of the objective.

    `width`: channels of the finest grid, doubled with each halving up to `most` times `width`. `latent`: number of
    latents. `beta`: weight of the KL term (Higgins et al. 2017); 1 = the evidence lower bound. `components`: most
    Gaussians of the density fitted to the latents.

    Of bags: `width` of the one hidden layer of each network; `dropout`: share of a bag's items that the encoder is not
    shown in training; `negatives`: items that represent the others of the catalogue in a step, 0 = all of them.

    Of sequences: `width` of both Transformers, and `blocks` of the one that writes; the one that reads has half as
    many. `slots`: positions that the latents are divided into. `share`: the KL term's share of all nats of a sequence,
    from 0 (the decoder alone determines it) to 1 (its latents do); the weight of the KL term, at least `beta`, is
    controlled for it. `dropout`: share of the tokens before the next one that the decoder is not shown in training.
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
    dropout: float = Field(default=0.0, ge=0, lt=1)
    negatives: int = Field(default=0, ge=0)
    slots: int = Field(default=4, ge=1)
    share: float = Field(default=0.25, gt=0, lt=1)


class VAESettings(BaseModel):
    """Options of sampling.

    `prior`: draw latents from the density that was fitted to them after training (fitted), or from the normal prior of
    training (normal). `truncation` scales their distance from the prior's mean (1 = as drawn): smaller values give more
    typical and less diverse samples.

    `guidance` g moves the decoder's condition vector from the learned null c0 to c0 + g (c - c0); 1 = as trained.
    Larger values follow labels more closely, at the cost of diversity. Little diversity is left at 3, the largest
    value.

    `length`: number of items of a bag, or most tokens of a sequence, at most as many as a window has; fields always
    have all their values. `temperature`, `top_k`, `top_p` and `min_p`: how tokens of a sequence are drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    prior: Literal["fitted", "normal"] = "fitted"
    truncation: float = Field(default=1.0, ge=0, le=1)
    guidance: float = Field(default=1.0, ge=0, le=3)
    length: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=10)  # 0 = the likeliest token
    top_k: int = Field(default=0, ge=0)  # only the k likeliest; 0 = all
    top_p: float = Field(default=1.0, gt=0, le=1)  # only the likeliest that make up p
    min_p: float = Field(default=0.0, ge=0, le=1)  # only those p times as likely as the best

    @property
    def cut(self) -> Cut:
        return Cut(self.temperature, self.top_k, self.top_p, self.min_p)
