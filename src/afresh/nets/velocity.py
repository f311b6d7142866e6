"""The velocity field of a flow: a network between known scales (Karras et al. 2022, sec. 5, on the straight path)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Space
from afresh.nets.conditioning import Conditioning, TimeEmbedding
from afresh.nets.dit import DiT
from afresh.nets.patches import fold, unfold
from afresh.nets.unet import UNet

HEAD = 64  # width of an attention head


@dataclass(frozen=True)
class VelocityShape:
    """Sizes. `unet`: a width for each grid, `blocks` on each. `dit`: one width, `blocks` layers.

    `patch` cells along every axis are folded into channels before the network sees them. `precondition` False leaves
    the network's output as the velocity (plain rectified flow).
    """

    net: Literal["unet", "dit"]
    widths: Sequence[int]
    blocks: int
    emb: int
    attention: bool
    patch: int
    precondition: bool


class Folded(nn.Module):
    """A U-Net over patches: (B, C, *grid), embedding -> (B, out, *grid)."""

    def __init__(self, shape: VelocityShape, rank: int, channels: int, out: int) -> None:
        super().__init__()
        cells = shape.patch**rank
        self.patch = shape.patch
        self.net = UNet(
            rank, channels * cells, out * cells, tuple(shape.widths), shape.blocks, shape.emb, shape.attention
        )

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return unfold(self.net(fold(x, self.patch), e), self.patch, x.shape[2:])


def network(shape: VelocityShape, grid: Sequence[int], channels: int, out: int) -> nn.Module:
    """(B, channels, *grid), embedding (B, emb) -> (B, out, *grid)."""
    if shape.net == "dit":
        width = shape.widths[0]
        heads = max(1, width // HEAD)
        return DiT(grid, channels, out, width, shape.blocks, heads, shape.emb, shape.patch)
    rank, widths = len(grid), tuple(shape.widths)
    if shape.patch == 1:
        return UNet(rank, channels, out, widths, shape.blocks, shape.emb, shape.attention)
    return Folded(shape, rank, channels, out)


class Velocity(nn.Module):
    """(x (B, C, *grid), t (B,), Cond) -> velocity (B, C, *grid)."""

    def __init__(self, shape: VelocityShape, space: Space, conds: CondSpec) -> None:
        super().__init__()
        channels, grid = space.shape[0], space.shape[1:]
        self.time = TimeEmbedding(shape.emb)
        self.conditioning = Conditioning(conds, shape.emb)
        self.net = network(shape, grid, channels, channels)
        self.std, self.precondition = space.std, shape.precondition

    def scales(self, t: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """c_in, c_skip, c_out at times t (B,), each shaped to broadcast over a field."""
        t = t.float().view(-1, *[1] * rank)
        if not self.precondition:
            return torch.ones_like(t), torch.zeros_like(t), torch.ones_like(t)
        s2 = self.std**2
        d2 = (1 - t) ** 2 + t**2 * s2
        return d2.rsqrt(), (t * s2 - (1 - t)) / d2, self.std * d2.rsqrt()

    def raw(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """F: the network's own output, of unit scale."""
        c_in, _, _ = self.scales(t, x.dim() - 1)
        embedding = nn.functional.silu(self.time(t) + self.conditioning(cond))
        return self.net(c_in * x, embedding).float()

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        _, c_skip, c_out = self.scales(t, x.dim() - 1)
        return c_skip * x + c_out * self.raw(x, t, cond)
