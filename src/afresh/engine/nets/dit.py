"""A diffusion Transformer over the patches of a field of 1 to 3 axes (Peebles and Xie 2023, DiT).

Adaptive layer normalisation with gates that start at zero, as in that paper; query-key normalisation (Henry et al.
2020) and SwiGLU (Shazeer 2020), as in later language models. Each patch of the grid has a learned position embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from afresh.engine.nets.attention import is_short, short_attention
from afresh.engine.nets.patches import fold, grid_of, unfold


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer normalisation of x (B, T, D) without weights, followed by scale and shift (B, D)."""
    y = F.layer_norm(x, x.shape[-1:])
    return y * (1 + scale[:, None].to(y.dtype)) + shift[:, None].to(y.dtype)


class DiTBlock(nn.Module):
    """x (B, T, D), modulation (B, 6 D) -> (B, T, D): attention among all patches and SwiGLU, each times a gate."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        hidden = 16 * max(1, round(width * 8 / 3 / 16))
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        s1, b1, g1, s2, b2, g2 = modulation.to(x.dtype).chunk(6, 1)
        x = x + g1[:, None] * self.out(self.attend(modulated(x, s1, b1)))
        gate, up = self.gate_up(modulated(x, s2, b2)).chunk(2, -1)
        return x + g2[:, None] * self.down(F.silu(gate) * up)

    def attend(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k = (F.rms_norm(a, a.shape[-1:]) for a in (q, k))
        attention = short_attention if is_short(b, self.heads, t, q) else F.scaled_dot_product_attention
        return attention(q, k.to(q.dtype), v.to(q.dtype)).transpose(1, 2).reshape(b, t, d)


class DiT(nn.Module):
    """(B, C, *grid), embedding (B, emb) -> (B, out, *grid). The last patch of an axis may extend over the edge.

    Raises ValueError if the width is not a multiple of the number of heads.
    """

    def __init__(
        self, grid: Sequence[int], channels: int, out: int, width: int, layers: int, heads: int, emb: int, patch: int
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the width must be a multiple of the {heads} heads, not {width}")
        coarse, cells = grid_of(grid, patch), patch ** len(grid)
        self.patch, self.grid = patch, tuple(grid)
        self.first = nn.Linear(channels * cells, width)
        self.position = nn.Parameter(nn.init.normal_(self.first.weight.new_empty(math.prod(coarse), width), std=0.02))
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(layers))
        self.modulations = nn.ModuleList(zeroed(nn.Linear(emb, 6 * width)) for _ in range(layers))
        self.last_modulation = zeroed(nn.Linear(emb, 2 * width))
        self.last = zeroed(nn.Linear(width, out * cells))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        folded = fold(x, self.patch)
        h = self.first(folded.flatten(2).transpose(1, 2)) + self.position  # (B, T, D)
        for block, modulation in zip(self.blocks, self.modulations, strict=True):
            h = block(h, modulation(e))
        scale, shift = self.last_modulation(e).chunk(2, 1)
        y = self.last(modulated(h, scale, shift))
        return unfold(y.transpose(1, 2).reshape(x.shape[0], -1, *folded.shape[2:]), self.patch, self.grid)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Zeroes a layer, so that a new block is the identity and a new network returns zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
