"""A residual network of convolutions on one grid, without normalisation, modulated by one vector.

What happens at a point within a short time depends on what is near it, so a network of the next state of a physical
system needs neither coarse grids nor attention; and how fast it changes depends on how large its values are, which a
normalisation takes away and the network has to learn again. On states of the Kuramoto-Sivashinsky equation, the error
of a step was a third of a U-Net's of the same minutes (docs/development/log.md). The order within a block is that of
He et al. 2016, as in APEBench (Koehler et al. 2024); the last convolutions of blocks start at zero (Goyal et al. 2017,
section 5.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Space
from afresh.core.model import batch_of_fields
from afresh.engine.nets.patches import fold, grid_of, unfold
from afresh.engine.nets.unet import Periodic, along, conv, zero

POINTS = 160  # of the states for which the sizes were measured
MANY_POINTS = 1024  # of a state, beyond which cells are folded: the same width learns four times as many states
LOCAL_POINTS = 2048  # of a step's examples
MODES = 12  # of each axis that a global filter changes
KERNEL = 5  # points of a convolution along each axis of one; 3 of more axes


def local_sizes(space: Space) -> list[dict[str, Any]]:
    """Of networks of a local field, from small to large: fields of a family's config (`VelocityShape`)."""
    patch = 2 if math.prod(space.shape[1:]) > MANY_POINTS else 1
    fixed = {"net": "resnet", "emb": 64, "attention": False, "patch": patch}
    widths = ((16, 3), (32, 4), (48, 4), (64, 5), (96, 6)) if patch == 1 else ((32, 3), (48, 4), (64, 5), (96, 6))
    return [{"widths": (width,), "blocks": blocks, **fixed} for width, blocks in widths]


def local_examples(parameters: int, space: Space) -> int:
    """How many states a network of so many parameters should see: each point is an example of its own."""
    return parameters * POINTS // math.prod(space.shape[1:])


def state_examples(parameters: int, space: Space) -> int:
    """The same of any space, for networks that draw in a few steps."""
    return local_examples(parameters, space) if space.local else parameters // 12


def state_batch(examples: int, space: Space) -> int:
    """States of a step: of a local field, in a minute of a core, 8 states of 160 points were better than 16, and these
    than 32 (docs/development/log.md)."""
    if not space.local:
        return batch_of_fields(examples, space)
    return max(4, min(8, LOCAL_POINTS // math.prod(space.shape[1:])))


class GlobalFilter(nn.Module):
    """A convolution of each channel of (B, C, *grid) with a kernel as large as the grid, by its low Fourier modes (Rao
    et al. 2021, global filter networks), as the velocity follows from the vorticity. It starts at zero."""

    def __init__(self, width: int, grid: Sequence[int]) -> None:
        super().__init__()
        axes = [[k for k in range(n) if min(k, n - k) <= min(MODES, (n - 1) // 2)] for n in grid[:-1]]
        axes.append(list(range(min(MODES, (grid[-1] - 1) // 2) + 1)))
        places, last = torch.zeros(1, dtype=torch.long), 1
        for n, kept in reversed(list(zip((*grid[:-1], grid[-1] // 2 + 1), axes, strict=True))):
            places, last = (torch.tensor(kept)[:, None] * last + places).flatten(), last * n
        self.register_buffer("places", places, persistent=False)
        self.weight = nn.Parameter(torch.zeros(width, len(places), 2))
        self.grid, self.over = tuple(grid), tuple(range(-len(grid), 0))

    def forward(self, h: Tensor) -> Tensor:
        modes = torch.fft.rfftn(h.float(), dim=self.over)
        flat, places = modes.flatten(2), self.get_buffer("places")
        kept = flat[..., places] * torch.view_as_complex(self.weight.float())
        out = torch.zeros_like(flat).index_copy(2, places, kept).view_as(modes)
        return torch.fft.irfftn(out, s=self.grid, dim=self.over).to(h.dtype)


class ConvBlock(nn.Module):
    """h + convolution(GELU(modulated(convolution(GELU(h)) + global filter(h)))), the filter on rings of two or more
    axes alone: no system along one axis was seen to need it."""

    def __init__(self, rank: int, width: int, emb: int, kernel: int, periodic: Periodic, grid: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = conv(rank, width, width, kernel, periodic=periodic)
        self.filter = GlobalFilter(width, grid) if rank > 1 and periodic and all(periodic) else None
        self.conv2 = zero(conv(rank, width, width, kernel, periodic=periodic))
        self.modulate = zero(nn.Linear(emb, 2 * width))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.modulate(e).chunk(2, 1)
        inner = self.conv1(F.gelu(h))
        inner = inner if self.filter is None else inner + self.filter(h)
        return h + self.conv2(F.gelu(inner * (1 + along(scale, inner)) + along(shift, inner)))


class ResNet(nn.Module):
    """(B, C, *grid), embedding (B, emb) -> (B, out, *grid), on a grid of which `patch` cells along each axis are folded
    into channels."""

    def __init__(
        self,
        rank: int,
        channels: int,
        out: int,
        width: int,
        blocks: int,
        emb: int,
        patch: int,
        grid: Sequence[int],
        periodic: Periodic = (),
    ) -> None:
        super().__init__()
        kernel, cells = KERNEL if rank == 1 else 3, patch**rank
        self.patch = patch
        self.first = conv(rank, channels * cells, width, kernel, periodic=periodic)
        self.blocks = nn.ModuleList(
            ConvBlock(rank, width, emb, kernel, periodic, grid_of(grid, patch)) for _ in range(blocks)
        )
        self.last = zero(conv(rank, width, out * cells, kernel, periodic=periodic))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.first(fold(x, self.patch))
        for block in self.blocks:
            h = block(h, e)
        return unfold(self.last(h), self.patch, x.shape[2:])
