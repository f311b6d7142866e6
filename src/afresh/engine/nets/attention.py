"""Softmax attention for short sequences on a CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Attention scores up to which two batched products are faster on a CPU than PyTorch's fused kernel, and are stored: in
# float32 they must fit the cache. Of bfloat16 the fused kernel is slow on a processor without tiles.
SHORT = {torch.float32: 2**21, torch.bfloat16: 2**24}


def is_short(batch: int, heads: int, length: int, like: Tensor) -> bool:
    """Whether `short_attention` is faster than the fused kernel for (batch, heads, length, length) scores in the dtype
    and on the device of `like`."""
    return like.device.type == "cpu" and batch * heads * length**2 <= SHORT.get(like.dtype, 0)


def causal_bias(length: int, like: Tensor) -> Tensor:
    """Additive mask (T, T): 0 where a position may attend, -1e9 where it may not."""
    return torch.full((length, length), -1e9, dtype=like.dtype, device=like.device).triu(1)


def short_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention by two batched products: q, k, v (B, H, T, D) to (B, H, T, D).

    `bias` (T, T) is added to the scores.
    """
    b, h, t, d = q.shape
    q = q.reshape(b * h, t, d) * (1 / math.sqrt(d))
    k = k.reshape(b * h, t, d).mT
    scores = q @ k if bias is None else torch.baddbmm(bias.to(q.dtype).expand(b * h, t, t), q, k)
    return (scores.softmax(-1).to(v.dtype) @ v.reshape(b * h, t, d)).view(b, h, t, d)
