"""Many continuations of one beginning, computed together: keys and values of the beginning are held once, not once a
continuation.

A continuation attends to the beginning of its row and to itself alone, so its logits are those that the network gives
to the beginning with the continuation after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.nets.transformer import Attention, Block, Decoder, rotate


@dataclass(frozen=True)
class Beginning:
    """Keys and values of each layer, (B, heads, L, D) each, of which the first counts[b] are in use."""

    keys: list[Tensor]
    values: list[Tensor]
    counts: Tensor  # (B,) int64


@torch.no_grad()
def begin(net: Decoder, x: Tensor, counts: Tensor, c: Tensor | None) -> Beginning | None:
    """The first counts[b] (at least 0) of the tokens x (B, L) of each row; None if there are none at all."""
    return run_branches(net, x[:, None], None, counts, c)[1] if x.shape[1] else None


@torch.no_grad()
def branch_logits(net: Decoder, before: Beginning | None, branches: Tensor, c: Tensor | None) -> Tensor:
    """The logits (B, M, V) of the token after each branch (B, M, T), which continues the beginning of its row."""
    none = torch.zeros(len(branches), dtype=torch.int64, device=branches.device)
    return net.logits(run_branches(net, branches, before, none, c)[0][:, :, -1])


def run_branches(
    net: Decoder, tokens: Tensor, before: Beginning | None, counts: Tensor, c: Tensor | None
) -> tuple[Tensor, Beginning]:
    """The hidden states (B, M, T, width) of branches after their beginning; and, of one branch a row, its keys and
    values as a beginning with `counts` tokens."""
    t = tokens.shape[2]
    first = torch.zeros_like(counts) if before is None else before.counts
    at = first[:, None] + torch.arange(t, device=tokens.device)  # (B, T)
    cos, sin = (net.get_buffer(name)[at.clamp_max(net.shape.context)][:, None, None] for name in ("cos", "sin"))
    x = net.embedding(tokens)
    if c is not None:
        x = x + c[:, None, None]
    keys, values = [], []
    for i, block in enumerate(net.blocks):
        assert isinstance(block, Block)
        y, k, v = attend(block.attention, block.attention_norm(x), (cos, sin), before, i)
        x = x + y
        x = x + block.mlp(block.mlp_norm(x))
        keys.append(k[:, :, 0])
        values.append(v[:, :, 0])
    return net.norm(x), Beginning(keys, values, counts)


def attend(
    net: Attention, x: Tensor, tables: tuple[Tensor, Tensor], before: Beginning | None, layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of branches x (B, M, T, width) to their beginning and to themselves; and their keys and values
    (B, heads, M, T, D)."""
    s, (b, m, t, _) = net.s, x.shape
    h = net.qkv(x).view(b, m, t, s.heads + 2 * s.kv_heads, s.dim).permute(0, 3, 1, 2, 4)
    q, k, v = h.split([s.heads, s.kv_heads, s.kv_heads], 1)  # (B, heads, M, T, D)
    q, k = rotate(net.q_norm(q.contiguous()), *tables), rotate(net.k_norm(k.contiguous()), *tables)
    if s.kv_heads != s.heads:
        k, v = (z.repeat_interleave(s.heads // s.kv_heads, 1) for z in (k, v))
    scale = s.dim**-0.5
    future = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
    own = (q @ k.transpose(-1, -2) * scale).masked_fill(future, -torch.inf)  # (B, heads, M, T, T)
    if before is None:
        y = own.softmax(-1) @ v
    else:
        flat = q.reshape(b, s.heads, m * t, s.dim)
        past = flat @ before.keys[layer].transpose(-1, -2) * scale  # (B, heads, M T, L)
        length = past.shape[-1]
        unused = torch.arange(length, device=x.device) >= before.counts[:, None]
        past = past.masked_fill(unused[:, None, None], -torch.inf).view(b, s.heads, m, t, length)
        weights = torch.cat([past, own], -1).softmax(-1)
        seen = weights[..., :length].reshape(b, s.heads, m * t, length) @ before.values[layer]
        y = seen.view(b, s.heads, m, t, s.dim) + weights[..., length:] @ v
    return net.out(y.permute(0, 2, 3, 1, 4).reshape(b, m, t, s.heads * s.dim)), k, v
