"""BERT as a frozen sentence encoder: the hidden states of tokens, pooled to one vector for each text.

Devlin et al. 2019 for the network (post-norm, learned positions), Reimers and Gurevych 2019 for the pooling. There is
no dropout, since the network is not trained. Weights are named as in BertModel of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core.safe_json import MOST_LAYERS


class BertConfig(BaseModel):
    """The fields of a config.json in the format of transformers that the forward pass needs; others are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    model_type: Literal["bert"]
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1, le=MOST_LAYERS)
    num_attention_heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    max_position_embeddings: int = Field(ge=1)
    layer_norm_eps: float = Field(1e-12, gt=0)
    type_vocab_size: int = Field(2, ge=1)
    hidden_act: Literal["gelu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"


class Layer(nn.Module):
    """Self-attention and a feed-forward network, each with a residual connection and normalised afterwards."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        width, self.heads = c.hidden_size, c.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out, self.attended = nn.Linear(width, width), nn.LayerNorm(width, c.layer_norm_eps)
        self.up, self.down = nn.Linear(width, c.intermediate_size), nn.Linear(c.intermediate_size, width)
        self.norm = nn.LayerNorm(width, c.layer_norm_eps)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (f(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        h = self.attended(h + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.norm(h + self.down(nn.functional.gelu(self.up(h))))


class Bert(nn.Module):
    """(ids (B, T) int64, mask (B, T) bool, true for tokens) -> hidden states (B, T, width)."""

    def __init__(self, c: BertConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(c.vocab_size, c.hidden_size)
        self.positions = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.types = nn.Embedding(c.type_vocab_size, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0])
        for layer in self.layers:
            h = layer(h, mask)
        return h


OUTER = {"word_embeddings": "words", "position_embeddings": "positions", "token_type_embeddings": "types"}
INNER = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "attended",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm",
}


def bert(config: BertConfig, weights: Mapping[str, Tensor]) -> Bert:
    """Builds the network from weights named as in BertModel of transformers, with or without the prefix `bert.`.

    Other weights, such as those of a pooler, are ignored. Raises RuntimeError naming weights that are missing or have
    another shape.
    """
    tensors = {k.removeprefix("bert."): v.float() for k, v in weights.items()}
    names = {f"embeddings.{theirs}": ours for theirs, ours in {**OUTER, "LayerNorm": "norm"}.items()}
    for i in range(config.num_hidden_layers):
        names |= {f"encoder.layer.{i}.{theirs}": f"layers.{i}.{ours}" for theirs, ours in INNER.items()}
    both = {f"{theirs}.{end}": f"{ours}.{end}" for theirs, ours in names.items() for end in ("weight", "bias")}
    with torch.device("meta"):
        net = Bert(config)
    net.load_state_dict({ours: tensors[theirs] for theirs, ours in both.items() if theirs in tensors}, assign=True)
    return net.eval().requires_grad_(False)


def pooled(hidden: Tensor, mask: Tensor, pooling: Literal["mean", "cls"], normalise: bool) -> Tensor:
    """Pools hidden states (B, T, E) to (B, E): their mean or the first one, scaled to length 1 if `normalise`."""
    if pooling == "cls":
        out = hidden[:, 0]
    else:
        weight = mask.unsqueeze(2).to(hidden.dtype)
        out = (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)
    return nn.functional.normalize(out, dim=1) if normalise else out
