"""Softmax attention for short sequences on a CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHORT = 2**21  # scores in all: while they fit a cache, two batched products beat the fused kernel on a CPU


def is_short(batch: int, heads: int, length: int, device: torch.device) -> bool:
    """Whether `short_attention` is the faster way for so many rows, heads and places."""
    return device.type == "cpu" and batch * heads * length**2 <= SHORT


def causal_bias(length: int, like: Tensor) -> Tensor:
    """(T, T): 0 where a place may look, a very negative number where it may not."""
    return torch.full((length, length), -1e9, dtype=like.dtype, device=like.device).triu(1)


def short_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of (B, H, T, D) by two batched products; `bias` (T, T) is added to the scores."""
    b, h, t, d = q.shape
    q = q.reshape(b * h, t, d) * (1 / math.sqrt(d))
    k = k.reshape(b * h, t, d).mT
    scores = q @ k if bias is None else torch.baddbmm(bias.to(q.dtype).expand(b * h, t, t), q, k)
    return (scores.softmax(-1).to(v.dtype) @ v.reshape(b * h, t, d)).view(b, h, t, d)
