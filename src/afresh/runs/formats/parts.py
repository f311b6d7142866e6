"""The tensors of a decoder as other programs divide them: q, k, v and gate, up are separate, not fused.

A part is named `embedding`, `norm`, `head`, or by layer: `3.q`, `3.q_bias`, `3.gate`. All have the shape (outputs,
inputs), as in torch.nn.Linear; the two rotary halves of a head are consecutive (rotate-half).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.engine.families.transformer import TransformerConfig
from afresh.runs.formats.files import few

Precision = Literal["float32", "bfloat16", "float16", "q8_0"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# part -> its name in transformers and in llama.cpp
TOP = {
    "embedding": ("model.embed_tokens.weight", "token_embd.weight"),
    "norm": ("model.norm.weight", "output_norm.weight"),
    "head": ("lm_head.weight", "output.weight"),
}
IN_BLOCK = {
    "attention_norm": ("input_layernorm.weight", "attn_norm.weight"),
    "q": ("self_attn.q_proj.weight", "attn_q.weight"),
    "k": ("self_attn.k_proj.weight", "attn_k.weight"),
    "v": ("self_attn.v_proj.weight", "attn_v.weight"),
    "q_bias": ("self_attn.q_proj.bias", "attn_q.bias"),
    "k_bias": ("self_attn.k_proj.bias", "attn_k.bias"),
    "v_bias": ("self_attn.v_proj.bias", "attn_v.bias"),
    "q_norm": ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    "k_norm": ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    "out": ("self_attn.o_proj.weight", "attn_output.weight"),
    "mlp_norm": ("post_attention_layernorm.weight", "ffn_norm.weight"),
    "gate": ("mlp.gate_proj.weight", "ffn_gate.weight"),
    "up": ("mlp.up_proj.weight", "ffn_up.weight"),
    "down": ("mlp.down_proj.weight", "ffn_down.weight"),
}

# weight of a block of afresh -> the parts that are its rows, in order
FUSED = {
    "attention_norm.weight": ("attention_norm",),
    "attention.qkv.weight": ("q", "k", "v"),
    "attention.qkv.bias": ("q_bias", "k_bias", "v_bias"),
    "attention.q_norm.weight": ("q_norm",),
    "attention.k_norm.weight": ("k_norm",),
    "attention.out.weight": ("out",),
    "mlp_norm.weight": ("mlp_norm",),
    "mlp.gate_up.weight": ("gate", "up"),
    "mlp.down.weight": ("down",),
}


def name_in(program: Literal["transformers", "llama.cpp"], part: str) -> str:
    """The name of a part in a program."""
    column, blocks = {"transformers": (0, "model.layers"), "llama.cpp": (1, "blk")}[program]
    if part in TOP:
        return TOP[part][column]
    layer, name = part.split(".")
    return f"{blocks}.{layer}.{IN_BLOCK[name][column]}"


def head_width(c: TransformerConfig) -> int:
    """Channels of one attention head."""
    return c.head_dim or c.width // c.heads


def shapes(c: TransformerConfig, vocab: int) -> dict[str, tuple[int, ...]]:
    """The shape of every part, by name. `c.mlp` must be set."""
    d = head_width(c)
    q, kv = c.heads * d, c.kv_heads * d
    layer: dict[str, tuple[int, ...]] = {
        "attention_norm": (c.width,),
        "q": (q, c.width),
        "k": (kv, c.width),
        "v": (kv, c.width),
        "out": (c.width, q),
        "mlp_norm": (c.width,),
        "gate": (c.mlp, c.width),
        "up": (c.mlp, c.width),
        "down": (c.width, c.mlp),
    }
    if c.qk_norm:
        layer |= {"q_norm": (d,), "k_norm": (d,)}
    if c.qkv_bias:
        layer |= {"q_bias": (q,), "k_bias": (kv,), "v_bias": (kv,)}
    out: dict[str, tuple[int, ...]] = {"embedding": (vocab, c.width), "norm": (c.width,)}
    if not c.tied:
        out["head"] = (vocab, c.width)
    return out | {f"{i}.{k}": v for i in range(c.layers) for k, v in layer.items()}


def parts_by_weight(c: TransformerConfig) -> dict[str, tuple[str, ...]]:
    """The name of every weight of afresh, with the parts that it consists of."""
    out: dict[str, tuple[str, ...]] = {"embedding.weight": ("embedding",), "norm.weight": ("norm",)}
    if not c.tied:
        out["head.weight"] = ("head",)
    known = shapes(c, 1)
    for i in range(c.layers):
        for ours, parts in FUSED.items():
            if f"{i}.{parts[0]}" in known:
                out[f"blocks.{i}.{ours}"] = tuple(f"{i}.{p}" for p in parts)
    return out


class Fused(Mapping[str, Tensor]):
    """Weights of afresh from their parts, which are joined at each access, so that few are in memory twice."""

    def __init__(self, parts: Mapping[str, Tensor], c: TransformerConfig) -> None:
        self.parts, self.names = parts, parts_by_weight(c)
        assert parts.keys() == {p for names in self.names.values() for p in names}

    def __getitem__(self, name: str) -> Tensor:
        rows = [self.parts[n] for n in self.names[name]]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def split(weights: Mapping[str, Tensor], c: TransformerConfig, vocab: int) -> dict[str, Tensor]:
    """Copies of the parts of afresh's weights. Raises UserError if there are weights that no format can hold."""
    table = parts_by_weight(c)
    check({k: tuple(v.shape) for k, v in weights.items()}, fused_shapes(c, vocab), "The model")
    sizes = shapes(c, vocab)
    out: dict[str, Tensor] = {}
    for ours, names in table.items():
        rows = weights[ours].split([sizes[n][0] for n in names])
        out |= {n: r.detach().clone() for n, r in zip(names, rows, strict=True)}
    return out


def fused_shapes(c: TransformerConfig, vocab: int) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of afresh, by name."""
    sizes = shapes(c, vocab)
    return {k: (sum(sizes[n][0] for n in names), *sizes[names[0]][1:]) for k, names in parts_by_weight(c).items()}


def check(stored: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raises UserError naming tensors that are missing, superfluous or of another shape."""
    missing = [k for k in wanted if k not in stored]
    extra = [k for k in stored if k not in wanted]
    wrong = [f"{k} is {list(stored[k])}, not {list(v)}" for k, v in wanted.items() if stored.get(k, v) != v]
    faults = []
    if missing:
        faults.append(f"{len(missing)} tensors are missing: {few(missing)}")
    if extra:
        faults.append(f"{len(extra)} tensors do not belong to this architecture: {few(extra)}")
    if wrong:
        faults.append(f"{len(wrong)} tensors differ in shape from the configuration: {few(wrong)}")
    if faults:
        raise UserError(
            f"{where} does not fit its configuration: {'; '.join(faults)}. "
            "Is the file complete, and does it belong to this configuration?"
        )


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError naming tensors with NaN or infinite numbers."""
    wrong = [k for k, v in weights.items() if not bool(torch.isfinite(v).all())]
    if wrong:
        raise UserError(
            f"{where} has weights that are not finite (NaN or infinity): {few(wrong)}. The file is damaged."
        )
