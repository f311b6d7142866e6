"""A residual U-Net over 1-D, 2-D or 3-D fields, modulated by one vector (Ronneberger et al. 2015).

The blocks follow Dhariwal and Nichol 2021: adaptive normalisation and zero-initialised output convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.engine.nets.attention import is_short, short_attention
from afresh.engine.nets.patches import spread

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


Periodic = Sequence[bool]  # for each axis whether the grid closes on itself; empty if none does


class Padded(nn.Module):
    """A convolution whose input is continued around along the `periodic` axes, and by zeros along the others."""

    def __init__(self, conv: nn.Module, kernel: int, periodic: Periodic) -> None:
        super().__init__()
        self.conv, half = conv, kernel // 2
        self.around, self.zeros = ([half * (p == kind) for p in reversed(periodic) for _ in "ab"] for kind in (1, 0))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(F.pad(x, self.around, mode="circular"), self.zeros))
        return out


def conv(rank: int, a: int, b: int, kernel: int, stride: int = 1, periodic: Periodic = ()) -> nn.Module:
    """A convolution over `rank` axes from a to b channels that continues the grid around or by zeros."""
    if kernel == 1 or not any(periodic):
        return CONV[rank](a, b, kernel, stride=stride, padding=kernel // 2)
    if all(periodic):
        return CONV[rank](a, b, kernel, stride=stride, padding=kernel // 2, padding_mode="circular")
    return Padded(CONV[rank](a, b, kernel, stride=stride), kernel, periodic)


def zero(module: nn.Module) -> nn.Module:
    """Zeroes the parameters, so that a residual branch starts at zero."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def along(v: Tensor, x: Tensor) -> Tensor:
    """Reshapes v (B, C) to broadcast over x (B, C, *grid)."""
    return v.view(*v.shape, *[1] * (x.dim() - 2)).to(x.dtype)


class ChannelNorm(nn.Module):
    """Layer normalisation of (B, C, *grid) over the channels of each position, as in ConvNeXt (Liu et al. 2022).

    With channels last in memory, torch's layer_norm needs no copy; group normalisation took a third of a training step
    on a CPU in this layout (docs/development/log.md).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.movedim(1, -1), (x.shape[1],), self.weight.to(x.dtype), self.bias.to(x.dtype))
        return y.movedim(-1, 1)

    def activated(self, x: Tensor, film: Tensor | None = None) -> Tensor:
        """silu(norm(x) (1 + scale) + shift), where film (B, 2 C) is scale and shift, concatenated."""
        h = self(x)
        if film is not None:
            scale, shift = film.chunk(2, 1)
            h = h * (1 + along(scale, h)) + along(shift, h)
        return F.silu(h)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, modulated norm, SiLU, convolution, added to a skip connection."""

    def __init__(self, rank: int, a: int, b: int, emb: int, periodic: Periodic = ()) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(a), ChannelNorm(b)
        self.conv1 = conv(rank, a, b, 3, periodic=periodic)
        self.conv2 = zero(conv(rank, b, b, 3, periodic=periodic))
        self.modulate = nn.Linear(emb, 2 * b)
        self.skip = conv(rank, a, b, 1) if a != b else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(self.norm1.activated(x))
        return self.skip(x) + self.conv2(self.norm2.activated(h, self.modulate(e)))


class SelfAttention(nn.Module):
    """Softmax attention over all positions of the grid, with a residual connection."""

    def __init__(self, rank: int, width: int, head: int = 32) -> None:
        super().__init__()
        self.heads = max(1, width // head)
        self.norm = ChannelNorm(width)
        self.qkv = conv(rank, width, 3 * width, 1)
        self.out = zero(conv(rank, width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, -1).transpose(3, 4).unbind(1)
        short = is_short(b, self.heads, q.shape[2], q)
        y = (short_attention if short else F.scaled_dot_product_attention)(q, k, v)  # (B, heads, places, c / heads)
        return x + self.out(y.transpose(2, 3).reshape(x.shape))


class UNet(nn.Module):
    """(B, C, *grid), embedding (B, emb) -> (B, out, *grid), for grids of any size, odd ones included.

    Each grid has `blocks` blocks on the way down and as many on the way up, with a skip connection from each to its
    counterpart. Upsampling unfolds channels to patches (Shi et al. 2016, "Real-time single image super-resolution",
    sec. 3.2): a product on the coarse grid instead of a convolution on the fine one, which took an eighth of the time
    (docs/development/log.md).
    """

    def __init__(
        self,
        rank: int,
        channels: int,
        out: int,
        widths: tuple[int, ...],
        blocks: int,
        emb: int,
        attention: bool,
        periodic: Periodic = (),
    ) -> None:
        super().__init__()
        self.first = conv(rank, channels, widths[0], 3, periodic=periodic)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        c = widths[0]
        for i, w in enumerate(widths):
            if i:
                self.shrink.append(conv(rank, c, c, 3, stride=2, periodic=periodic))
            for _ in range(blocks):
                self.down.append(ResBlock(rank, c, w, emb, periodic))
                c = w
        self.middle = ResBlock(rank, c, c, emb, periodic)
        self.attention = SelfAttention(rank, c) if attention else nn.Identity()
        self.middle2 = ResBlock(rank, c, c, emb, periodic)
        for i, w in reversed(list(enumerate(widths))):
            self.up.extend(ResBlock(rank, 2 * w, w, emb, periodic) for _ in range(blocks))
            if i:
                self.grow.append(conv(rank, w, widths[i - 1] * 2**rank, 1))
        self.norm = ChannelNorm(widths[0])
        self.last = zero(conv(rank, widths[0], out, 3, periodic=periodic))
        self.levels, self.blocks = len(widths), blocks

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h, skips, down, up = self.first(x), list[Tensor](), iter(self.down), iter(self.up)
        for i in range(self.levels):
            if i:
                h = self.shrink[i - 1](h)
            for _ in range(self.blocks):
                h = next(down)(h, e)
                skips.append(h)
        h = self.middle2(self.attention(self.middle(h, e)), e)
        for i in range(self.levels):
            if i:
                h = spread(self.grow[i - 1](h), skips[-1].shape[2:])
            for _ in range(self.blocks):
                h = next(up)(torch.cat([h, skips.pop()], 1), e)
        return self.last(self.norm.activated(h))
