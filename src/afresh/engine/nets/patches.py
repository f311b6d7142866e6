"""Folding fields into coarser fields of more channels, by patches of p cells along every axis, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def grid_of(grid: Sequence[int], patch: int) -> tuple[int, ...]:
    """The grid of patches, rounded up: the last patch of an axis may extend over the edge."""
    return tuple(-(-n // patch) for n in grid)


def fold(x: Tensor, patch: int) -> Tensor:
    """(B, C, *grid) -> (B, C patch^rank, *grid_of(grid, patch)); cells over the edge are 0."""
    if patch == 1:
        return x
    rank = x.dim() - 2
    over = [(-n) % patch for n in x.shape[2:]]
    if any(over):
        x = F.pad(x, [v for o in reversed(over) for v in (0, o)])
    coarse = [n // patch for n in x.shape[2:]]
    x = x.reshape(*x.shape[:2], *[v for n in coarse for v in (n, patch)])
    inner = [3 + 2 * i for i in range(rank)]
    x = x.permute(0, 1, *inner, *[2 + 2 * i for i in range(rank)])
    return x.reshape(x.shape[0], -1, *coarse)


def unfold(y: Tensor, patch: int, grid: Sequence[int]) -> Tensor:
    """The inverse of `fold`: (B, C patch^rank, *coarse) -> (B, C, *grid)."""
    if patch == 1:
        return y
    rank, coarse = len(grid), y.shape[2:]
    y = y.reshape(y.shape[0], -1, *[patch] * rank, *coarse)
    order = [v for i in range(rank) for v in (2 + rank + i, 2 + i)]
    y = y.permute(0, 1, *order).reshape(y.shape[0], -1, *[n * patch for n in coarse])
    for axis, n in enumerate(grid, start=2):
        y = y.narrow(axis, 0, n)
    return y


def spread(y: Tensor, grid: Sequence[int]) -> Tensor:
    """Unfolds channels to a grid twice as fine: (B, 2^rank C, *coarse) -> (B, C, *grid).

    Unlike in `unfold`, the position of a cell in its patch is the slower index of the channels, and channels stay last
    in memory: one copy instead of three.
    """
    rank, coarse = len(grid), y.shape[2:]
    y = y.movedim(1, -1)
    y = y.reshape(y.shape[0], *coarse, *[2] * rank, -1)
    order = [v for i in range(rank) for v in (1 + i, 1 + rank + i)]
    y = y.permute(0, *order, 1 + 2 * rank).reshape(y.shape[0], *[2 * n for n in coarse], y.shape[-1])
    for axis, n in enumerate(grid, start=1):
        y = y.narrow(axis, 0, n)
    return y.movedim(-1, 1)
