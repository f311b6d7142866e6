"""The tensors of a decoder one by one, as every format but our own has them: q, k, v and gate, up apart.

A part is named `embedding`, `norm`, `head`, or by layer: `3.q`, `3.q_bias`, `3.gate`. All are (rows, columns) with
rows the outputs, as in torch.nn.Linear, and rotary halves lie one after the other (rotate-half).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.families.transformer import TransformerConfig

Precision = Literal["float32", "bfloat16", "float16", "q8_0"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHOWN = 6  # names in a message

# ours -> the parts that are its rows, in order
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


def head_width(c: TransformerConfig) -> int:
    return c.head_dim or c.width // c.heads


def shapes(c: TransformerConfig, vocab: int) -> dict[str, tuple[int, ...]]:
    """Every part and its shape. `c.mlp` must be set."""
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


def named(c: TransformerConfig) -> dict[str, tuple[str, ...]]:
    """Our names of weights, and the parts that each is made of."""
    out: dict[str, tuple[str, ...]] = {"embedding.weight": ("embedding",), "norm.weight": ("norm",)}
    if not c.tied:
        out["head.weight"] = ("head",)
    known = shapes(c, 1)
    for i in range(c.layers):
        for ours, parts in FUSED.items():
            if f"{i}.{parts[0]}" in known:
                out[f"blocks.{i}.{ours}"] = tuple(f"{i}.{p}" for p in parts)
    return out


def fuse(parts: dict[str, Tensor], c: TransformerConfig) -> dict[str, Tensor]:
    """Weights by our names. Takes the parts out of `parts`, so that memory holds little twice."""
    out = {}
    for ours, names in named(c).items():
        found = [parts.pop(n) for n in names]
        out[ours] = found[0] if len(found) == 1 else torch.cat(found)
    assert not parts, sorted(parts)
    return out


def split(weights: Mapping[str, Tensor], c: TransformerConfig, vocab: int) -> dict[str, Tensor]:
    """The parts of weights by our names, as copies. Raises UserError for weights that no format has a place for."""
    table = named(c)
    check({k: tuple(v.shape) for k, v in weights.items()}, fused_shapes(c, vocab), "The model")
    sizes = shapes(c, vocab)
    out: dict[str, Tensor] = {}
    for ours, names in table.items():
        rows = weights[ours].split([sizes[n][0] for n in names])
        out |= {n: r.detach().clone() for n, r in zip(names, rows, strict=True)}
    return out


def fused_shapes(c: TransformerConfig, vocab: int) -> dict[str, tuple[int, ...]]:
    """Every weight by our name and its shape."""
    sizes = shapes(c, vocab)
    return {k: (sum(sizes[n][0] for n in names), *sizes[names[0]][1:]) for k, names in named(c).items()}


def check(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raises UserError when tensors are missing, too many, or of another shape, naming them."""
    missing = [k for k in wanted if k not in found]
    extra = [k for k in found if k not in wanted]
    bad = [f"{k} is {list(found[k])}, not {list(wanted[k])}" for k in wanted if k in found and found[k] != wanted[k]]
    said = []
    if missing:
        said.append(f"{len(missing)} tensors are missing: {few(missing)}")
    if extra:
        said.append(f"{len(extra)} tensors have no place in this architecture: {few(extra)}")
    if bad:
        said.append(f"{len(bad)} tensors have another shape than the configuration says: {few(bad)}")
    if said:
        raise UserError(
            f"{where} does not fit its configuration: {'; '.join(said)}. "
            "Is the file whole, and does it belong to this configuration?"
        )


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError naming tensors with numbers that are not finite."""
    bad = [k for k, v in weights.items() if not bool(torch.isfinite(v).all())]
    if bad:
        raise UserError(f"{where} has weights that are not finite (NaN or infinity): {few(bad)}. The file is damaged.")


def rename(c: TransformerConfig, vocab: int, name: Callable[[str], str]) -> dict[str, tuple[int, ...]]:
    """The shapes of all parts under the names of a format."""
    return {name(k): v for k, v in shapes(c, vocab).items()}


def few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
