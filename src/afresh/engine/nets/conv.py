"""Convolutional networks over a 1-, 2- or 3-dimensional grid of any size, odd sizes included.

A grid is halved (rounding up) until no axis is longer than `LEAST`. Networks that generate fields go through the same
grids in reverse, so that their output has exactly the size of the data. Networks take a condition as a vector
c (B, cond), made by `nets.conditioning`, and contain no losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.engine.nets.double_backward import leaky, twice
from afresh.engine.nets.patches import fold, grid_of, unfold

LEAST = 4  # the longest axis of the coarsest grid
LEAK = 0.2
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}

Grid = tuple[int, ...]
Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
L = TypeVar("L", nn.Conv1d | nn.Conv2d | nn.Conv3d, nn.Linear)


def ladder(grid: Sequence[int], least: int = LEAST) -> list[Grid]:
    """Grids from fine to coarse: every axis longer than `least` is halved, rounding up, as in (28,) (14,) (7,) (4,)."""
    steps = [tuple(grid)]
    while max(steps[-1]) > least:
        steps.append(tuple((n + 1) // 2 if n > least else n for n in steps[-1]))
    return steps


def widths(levels: int, width: int, most: int) -> list[int]:
    """Channels of each level, fine to coarse: doubled with each halving of the grid, up to `most` times `width`."""
    return [width * min(2**i, most) for i in range(levels)]


def conv(dims: int, inward: int, outward: int, size: int, groups: int = 1, bias: bool = True) -> Conv:
    """A convolution over `dims` axes that keeps the grid's size (odd `size`, zero padding)."""
    kind: type[Conv] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return kind(inward, outward, size, padding=size // 2, groups=groups, bias=bias)


def start(layer: L, gain: float) -> L:
    """Initialises a layer with weights from N(0, gain^2 / fan-in), zero for gain 0, and a bias of zero."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def dense(x: Tensor) -> Tensor:
    """Puts channels last in memory where torch has this layout, with which convolutions are faster on CPU and GPU."""
    if x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if x.dim() == 5:
        return x.contiguous(memory_format=torch.channels_last_3d)
    return x


def shrink(x: Tensor, grid: Grid) -> Tensor:
    """Averages pairs of cells along each axis that `grid` halves; an odd last cell is copied."""
    steps = [1 if n == m else 2 for n, m in zip(x.shape[2:], grid, strict=True)]
    if steps == [1] * len(steps):
        return x
    if len(steps) == 1:
        return F.avg_pool1d(x, steps, ceil_mode=True, count_include_pad=False)
    if len(steps) == 2:
        return F.avg_pool2d(x, steps, ceil_mode=True, count_include_pad=False)
    return F.avg_pool3d(x, steps, ceil_mode=True, count_include_pad=False)


def grow(x: Tensor, grid: Grid) -> Tensor:
    """Interpolates x linearly to a finer `grid`."""
    if tuple(x.shape[2:]) == tuple(grid):
        return x
    return F.interpolate(x, size=grid, mode=MODES[len(grid)], align_corners=False)


def folded(shape: Sequence[int], patch: int) -> tuple[int, ...]:
    """The shape (C, *grid) after `fold`."""
    return (shape[0] * patch ** (len(shape) - 1), *grid_of(shape[1:], patch))


# --------------------------------------------------------------------------- with normalisation (VAE)


class ModulatedBlock(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x))))))): a residual block modulated by e (B, cond).

    Group normalisation with a scale and a shift from the condition (FiLM, Perez et al. 2018; adaptive group
    normalisation, Dhariwal and Nichol 2021, sec. 3). The last convolution starts at zero, so that the block starts as
    the identity.
    """

    def __init__(self, dims: int, channels: int, cond: int) -> None:
        super().__init__()
        groups = math.gcd(channels, max(1, channels // 16))
        self.norm_1 = nn.GroupNorm(groups, channels)
        self.conv_1 = conv(dims, channels, channels, 3)
        self.norm_2 = nn.GroupNorm(groups, channels, affine=False)
        self.film = nn.Linear(cond, 2 * channels)
        self.conv_2 = start(conv(dims, channels, channels, 3), 0)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.norm_2(self.conv_1(F.silu(self.norm_1(x))))
        scale, shift = self.film(e)[(...,) + (None,) * (x.dim() - 2)].chunk(2, 1)  # (B, C, 1, ...) each
        return x + self.conv_2(F.silu(h * (1 + scale) + shift))


class ModulatedLevel(nn.Module):
    """The blocks of one grid, all modulated by the same e."""

    def __init__(self, dims: int, channels: int, cond: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ModulatedBlock(dims, channels, cond) for _ in range(blocks))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, e)
        return x


class ConvEncoder(nn.Module):
    """(x (B, C, *grid), c (B, cond)) -> (mean, log variance) of the latent, (B, latent) each, float32.

    Patches of `patch` cells along each axis become the channels of one position of the finest grid, so that the same
    computation affords a larger `width`.
    """

    def __init__(
        self, shape: Sequence[int], cond: int, latent: int, width: int, blocks: int, most: int = 4, patch: int = 1
    ) -> None:
        super().__init__()
        self.patch, shape = patch, folded(shape, patch)
        self.grids = ladder(shape[1:])
        dims, channels = len(shape) - 1, widths(len(self.grids), width, most)
        self.first = conv(dims, shape[0], width, 3)
        self.levels = nn.ModuleList(ModulatedLevel(dims, c, cond, blocks) for c in channels)
        self.downs = nn.ModuleList(conv(dims, a, b, 1) for a, b in pairwise(channels))
        self.norm = nn.GroupNorm(1, channels[-1])
        self.last = start(nn.Linear(channels[-1] * math.prod(self.grids[-1]), 2 * latent), 0.1)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h = self.first(dense(fold(x, self.patch)))
        for i, level in enumerate(self.levels):
            if i:
                h = self.downs[i - 1](shrink(h, self.grids[i]))
            h = level(h, c)
        mean, log_var = self.last(F.silu(self.norm(h)).flatten(1)).float().chunk(2, 1)
        return mean, log_var


class ConvDecoder(nn.Module):
    """(z (B, latent), c (B, cond)) -> mean of x, (B, C, *grid), float32.

    z enters twice: as the activations on the coarsest grid, and with c as the modulation of every block, so that fine
    levels do not depend on coarse ones to pass it on.
    """

    def __init__(
        self, shape: Sequence[int], cond: int, latent: int, width: int, blocks: int, most: int = 4, patch: int = 1
    ) -> None:
        super().__init__()
        self.grid, self.patch, shape = shape[1:], patch, folded(shape, patch)
        self.grids = ladder(shape[1:])
        dims, channels = len(shape) - 1, widths(len(self.grids), width, most)
        self.seed = (channels[-1], *self.grids[-1])
        self.embed = nn.Sequential(nn.Linear(latent + cond, cond), nn.SiLU(), nn.Linear(cond, cond), nn.SiLU())
        self.first = nn.Linear(latent + cond, math.prod(self.seed))
        self.levels = nn.ModuleList(ModulatedLevel(dims, c, cond, blocks) for c in channels)
        self.ups = nn.ModuleList(conv(dims, b, a, 1) for a, b in pairwise(channels))
        self.norm = nn.GroupNorm(math.gcd(width, max(1, width // 16)), width)
        self.last = start(conv(dims, width, shape[0], 3), 0)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        both = torch.cat([z, c], 1)
        e = self.embed(both)
        h = dense(self.first(both).view(-1, *self.seed))
        for i in reversed(range(len(self.levels))):
            if i < len(self.ups):
                h = grow(self.ups[i](h), self.grids[i])
            h = self.levels[i](h, e)
        return unfold(self.last(F.silu(self.norm(h))).float(), self.patch, self.grid)


# --------------------------------------------------------------------------- without normalisation (GAN)


class FreeBlock(nn.Module):
    """x + narrow(leaky(spread(leaky(widen(x))))): 1, 3 and 1 cells wide, no normalisation.

    Huang et al. 2024 ("The GAN is dead; long live the GAN!", R3GAN, sec. 3): grouped middle convolution, Fixup
    initialisation (Zhang et al. 2019): the last convolution is zero, the others are scaled by depth^(-1/4).
    """

    def __init__(self, dims: int, channels: int, hidden: int, groups: int, depth: int) -> None:
        super().__init__()
        gain = math.sqrt(2 / (1 + LEAK**2)) * depth**-0.25
        self.widen = start(conv(dims, channels, hidden, 1), gain)
        self.spread = start(conv(dims, hidden, hidden, 3, groups), gain)
        self.narrow = start(conv(dims, hidden, channels, 1, bias=False), 0)

    def forward(self, x: Tensor) -> Tensor:
        return x + twice(self.narrow, leaky(twice(self.spread, leaky(twice(self.widen, x), LEAK)), LEAK))


def _free_level(dims: int, channels: int, blocks: int, group: int, depth: int) -> nn.Sequential:
    """`blocks` blocks, with `group` channels in each group of the middle convolution (0: one group)."""
    groups = channels // group if group and channels % group == 0 else 1
    return nn.Sequential(*(FreeBlock(dims, channels, channels, groups, depth) for _ in range(blocks)))


class Generator(nn.Module):
    """(z (B, latent), c (B, cond)) -> x (B, C, *grid), float32."""

    def __init__(
        self, shape: Sequence[int], cond: int, latent: int, width: int, blocks: int, most: int = 4, group: int = 0
    ) -> None:
        super().__init__()
        self.grids = ladder(shape[1:])
        dims, channels = len(shape) - 1, widths(len(self.grids), width, most)
        depth = blocks * len(channels)
        self.seed = (channels[-1], *self.grids[-1])
        self.first = start(nn.Linear(latent + cond, math.prod(self.seed)), 1)
        self.levels = nn.ModuleList(_free_level(dims, c, blocks, group, depth) for c in channels)
        self.ups = nn.ModuleList(start(conv(dims, b, a, 1, bias=False), 1) for a, b in pairwise(channels))
        self.last = start(conv(dims, width, shape[0], 3), 1)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        h = dense(self.first(torch.cat([z, c], 1)).view(-1, *self.seed))
        for i in reversed(range(len(self.levels))):
            if i < len(self.ups):
                h = grow(self.ups[i](h), self.grids[i])
            h = self.levels[i](h)
        return self.last(h).float()


class Critic(nn.Module):
    """(x (B, C, *grid), c (B, cond)) -> how real x looks given c, (B,) float32.

    The condition enters by projection (Miyato and Koyama 2018, eq. 3): a(h) + <b(h), c> / sqrt(cond).
    """

    def __init__(self, shape: Sequence[int], cond: int, width: int, blocks: int, most: int = 4, group: int = 0) -> None:
        super().__init__()
        self.grids = ladder(shape[1:])
        dims, channels = len(shape) - 1, widths(len(self.grids), width, most)
        depth = blocks * len(channels)
        self.first = start(conv(dims, shape[0], width, 3), 1)
        self.levels = nn.ModuleList(_free_level(dims, c, blocks, group, depth) for c in channels)
        self.downs = nn.ModuleList(start(conv(dims, a, b, 1, bias=False), 1) for a, b in pairwise(channels))
        flat = channels[-1] * math.prod(self.grids[-1])
        self.plain = start(nn.Linear(flat, 1, bias=False), 1)
        self.projection = start(nn.Linear(flat, cond, bias=False), 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = twice(self.first, dense(x))
        for i, level in enumerate(self.levels):
            if i:
                h = twice(self.downs[i - 1], shrink(h, self.grids[i]))
            h = level(h)
        h = h.flatten(1)
        match = (self.projection(h).float() * c.float()).sum(1) / math.sqrt(c.shape[1])
        return self.plain(h).float().squeeze(1) + match
