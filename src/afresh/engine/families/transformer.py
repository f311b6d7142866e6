"""The autoregressive Transformer over tokens: text, code, and images whose pixels are quantised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from afresh.core import Branch, Cond, CondSpec, Family, Modules, PlanHints, Space
from afresh.core.safe_json import MOST_LAYERS
from afresh.engine.nets.batched_continuations import Beginning, Twigs, begin, branch_logits, go_on
from afresh.engine.nets.transformer import (
    TOKEN_RECIPE,
    TOKEN_SIZES,
    Block,
    Decoder,
    DecoderShape,
    compilable,
    layers_of,
    token_batch,
    token_examples,
)
from afresh.engine.sampling.next_token import EVALUATIONS, LIKELIHOOD, POLICY, SAMPLING, NextTokenObjective, predictor

NEGATIVES = 1024  # of a catalogue with more than twice as many items


class TransformerConfig(BaseModel):
    """Sizes of the decoder, and how it is trained. `mlp` 0: 8/3 of the width, rounded up to a multiple of 32;
    `head_dim` 0: width / heads.

    `apart`: documents of a stream that share a window do not attend to one another. The fields from `rope_theta` on
    cover public models (nets/transformer.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: int = Field(192, ge=2)  # of the residual stream
    layers: int = Field(4, ge=1, le=MOST_LAYERS)  # blocks of attention and mlp
    heads: int = Field(3, ge=1)  # of attention
    kv_heads: int = Field(3, ge=1)  # heads of keys and values, shared by the others
    mlp: int = Field(0, ge=0)
    qk_norm: bool = True  # RMSNorm of queries and keys
    apart: bool = True
    rope_theta: float = Field(10_000.0, gt=0)
    eps: float = Field(1e-6, gt=0)  # of RMSNorm
    head_dim: int = Field(0, ge=0)
    tied: bool = False  # whether the output uses the embedding
    dropout: float = Field(0.0, ge=0, lt=1)  # share of the embeddings and of the branches' outputs, in training
    negatives: int = Field(0, ge=0)  # tokens that represent the vocabulary in training; 0 = all of it
    qkv_bias: bool = False  # biases of queries, keys and values
    rope_scaling: tuple[float, float, float, int] | None = None  # of Llama 3.1: factor, low, high, context

    @model_validator(mode="after")
    def check(self) -> TransformerConfig:
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, not {self.head_dim}")
        if not self.head_dim and (self.width % self.heads or (self.width // self.heads) % 2):
            raise ValueError(f"width {self.width} must be an even multiple of heads ({self.heads})")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


def brancher(modules: Modules, space: Space) -> Branch:
    """A Branch of the decoder. It keeps the keys and values of the last beginnings, which are often asked again, or
    with some tokens more."""
    net = modules["decoder"]
    assert isinstance(net, Decoder)
    last: tuple[Tensor, Cond, Beginning] | None = None  # tokens, condition

    def beginning(x: Tensor, counts: Tensor, cond: Cond, c: Tensor | None) -> Beginning | None:
        nonlocal last
        if last is not None and last[1] is cond and last[0].shape[1] <= x.shape[1]:
            old, more = last[2], counts - last[2].counts
            known = torch.arange(last[0].shape[1], device=x.device) < old.counts[:, None]
            same = bool((last[0].eq(x[:, : last[0].shape[1]]) | ~known).all())
            if same and int(more.min()) == int(more.max()) >= 0:
                if extra := int(more[0]):
                    at = old.counts[:, None] + torch.arange(extra, device=x.device)
                    last = x, cond, go_on(net, old, x.gather(1, at), c)
                return last[2]
        made = begin(net, x, counts, c)
        last = None if made is None else (x, cond, made)
        return made

    def branch(x: Tensor, counts: Tensor, branches: Tensor, stem: int, each: int, cond: Cond) -> Tensor:
        c = net.condition(cond)
        return branch_logits(net, beginning(x, counts, cond, c), branches, c, Twigs(stem, each))

    return branch


def accepts(space: Space) -> str | None:
    if space.kind != "tokens":
        return "transformer needs tokens; a field must pass through a codec first"
    if space.slots:
        return (
            "transformer may draw any token anywhere, and positions here hold tokens of their own; masked takes these"
        )
    return None if len(space.shape) == 1 else "transformer takes one token for each position, not several levels"


def sizes(space: Space) -> Sequence[TransformerConfig]:
    """From 0.2M to 25M parameters, with heads of 32 or 64."""
    return [TransformerConfig(width=w, layers=n, heads=h, kv_heads=h) for w, n, h in TOKEN_SIZES]


def regime(epochs: float, steps: int, examples: int, space: Space) -> dict[str, float]:
    """Weight decay, and the half-life of the weights' average, a twentieth of the run.

    The weight decay was fitted to the values with the lowest held-out loss for 1 to 30 epochs and 300 to 3,000 steps
    (docs/development/log.md, "Regimes").
    """
    decay = min(1.5, 2.26 * (epochs**2 / steps) ** (2 / 3))
    return {"weight_decay": round(decay, 3), "ema_half_life": round(0.05 * examples)}


def catalogue_sizes(space: Space) -> Sequence[TransformerConfig]:
    """Two layers of 32 to 256, as embeddings of items are most of the parameters."""
    negatives = NEGATIVES if space.vocab[0] > 2 * NEGATIVES else 0
    fixed = {"tied": True, "dropout": 0.5, "negatives": negatives, "layers": 2}
    return [TransformerConfig(width=w, heads=w // 32, kv_heads=w // 32, **fixed) for w in (32, 64, 128, 256)]


def build(config: TransformerConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    mlp = config.mlp or -(-config.width * 8 // 3 // 32) * 32
    shape = DecoderShape(
        vocab=space.vocab[0],
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        mlp=mlp,
        context=space.shape[0],
        positions=space.shape[0] + 1 if space.grid else 0,
        qk_norm=config.qk_norm,
        rope_theta=config.rope_theta,
        eps=config.eps,
        head_dim=config.head_dim,
        tied=config.tied,
        qkv_bias=config.qkv_bias,
        rope_scaling=config.rope_scaling,
        separator=space.context_token if config.apart and space.stream and not space.records else -1,
    )
    return {"decoder": Decoder(shape, conds)}


def regions(modules: Modules, device: str) -> Sequence[nn.Module]:
    return compilable(modules["decoder"], device)


def blocks(modules: Modules) -> Sequence[nn.Module]:
    return layers_of(modules["decoder"], Block)


TEXTS = Family(
    name="transformer",
    accepts=accepts,
    config=TransformerConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=token_examples,
        batch=token_batch,
        recipe=lambda space: TOKEN_RECIPE,
        regime=regime,
        regions=regions,
        blocks=blocks,
    ),
    build=build,
    objective=NextTokenObjective,
    sampling=SAMPLING,
    likelihood=LIKELIHOOD,
    predict=lambda modules, space: predictor(modules, space.shape[0] + 1),
    branch=brancher,
    evaluations=EVALUATIONS,
    policy=POLICY,
    how="writes one piece after the other",
)

CATALOGUES = replace(
    TEXTS,
    accepts=lambda space: accepts(space) if space.catalogue else "this is the record of catalogues",
    plan=PlanHints(
        sizes=catalogue_sizes,
        # Five tokens for each parameter, as an item is seen seldom.
        examples_wanted=lambda parameters, space: 5 * parameters // space.shape[0],
        batch=token_batch,
        # AdamW overfits less than Muon and at a lower rate (docs/development/log.md).
        recipe=lambda space: {"optimizer": "adamw", "lr": 2e-3, "betas": (0.9, 0.98), "weight_decay": 0.1},
        regime=lambda epochs, steps, examples, space: {"ema_half_life": round(0.05 * examples)},
        regions=regions,
        blocks=blocks,
    ),
)

FAMILY = replace(TEXTS, variants=(CATALOGUES,))
