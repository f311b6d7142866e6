"""Differentiable augmentation (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training").

Real and made fields alike are changed before the critic sees them, so a critic cannot learn a small data set by
heart, and gradients reach the generator through the change. Each operation strikes each example with
probability `p`, drawn from the example's index. Colour operations apply to pictures of three channels only:
elsewhere a channel is a quantity whose level means something.
"""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.rng import Rng

SHIFT = 1 / 8  # farthest translation, of an axis' length
HOLE = 1 / 2  # side of the cut-out box, of an axis' length


def _spread(v: Tensor, x: Tensor) -> Tensor:
    """(B,) to (B, 1, ..., 1) with as many dimensions as x."""
    return v.view(-1, *[1] * (x.dim() - 1))


def colour(x: Tensor, rng: Rng, index: Tensor, purpose: str, p: float) -> Tensor:
    """Brightness +-0.5, saturation x0-2, contrast x0.5-1.5, in that order (Zhao et al.'s code, `color`)."""
    u = rng.uniform(f"{purpose}/colour", index, (6,)).to(x.dtype)  # three amounts, three strikes
    strike = (u[:, 3:] < p).to(x.dtype)
    x = x + _spread((u[:, 0] - 0.5) * strike[:, 0], x)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _spread(1 + (2 * u[:, 1] - 1) * strike[:, 1], x)
    level = x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
    return level + (x - level) * _spread(1 + (u[:, 2] - 0.5) * strike[:, 2], x)


def translate(x: Tensor, rng: Rng, index: Tensor, purpose: str, p: float) -> Tensor:
    """Move by up to an eighth of each axis, whole cells; what comes into view is 0."""
    strike = rng.uniform(f"{purpose}/translate/strike", index) < p  # (B,)
    for axis, n in enumerate(x.shape[2:], start=2):
        far = max(1, round(n * SHIFT)) if n > 1 else 0
        u = rng.uniform(f"{purpose}/translate/{axis}", index)
        by = torch.where(strike, (u * (2 * far + 1)).long() - far, 0)  # (B,) in [-far, far]
        source = torch.arange(n, device=x.device) + by[:, None]  # (B, n)
        shape = [len(x), *[1] * (axis - 1), n, *[1] * (x.dim() - axis - 1)]
        inside = ((source >= 0) & (source < n)).view(shape).to(x.dtype)
        x = x.gather(axis, source.clamp(0, n - 1).view(shape).expand_as(x)) * inside
    return x


def cutout(x: Tensor, rng: Rng, index: Tensor, purpose: str, p: float) -> Tensor:
    """Set a box of half of each axis, its centre anywhere in the field, to 0."""
    strike = rng.uniform(f"{purpose}/cutout/strike", index) < p  # (B,)
    hole = _spread(strike, x)  # grows to (B, 1, *grid)
    for axis, n in enumerate(x.shape[2:], start=2):
        side = max(1, round(n * HOLE))
        centre = (rng.uniform(f"{purpose}/cutout/{axis}", index) * (n + 1)).long()  # (B,) in [0, n]
        away = torch.arange(n, device=x.device) - (centre - side // 2)[:, None]  # (B, n)
        shape = [len(x), *[1] * (axis - 1), n, *[1] * (x.dim() - axis - 1)]
        hole = hole & ((away >= 0) & (away < side)).view(shape)
    return torch.where(hole, torch.zeros((), dtype=x.dtype, device=x.device), x)


def augment(x: Tensor, rng: Rng, index: Tensor, purpose: str, p: float) -> Tensor:
    """Colour (three channels over a plane only), translation, cut-out of x (B, C, *grid); p = 0 gives x itself."""
    if p <= 0:
        return x
    if x.dim() == 4 and x.shape[1] == 3:
        x = colour(x, rng, index, purpose, p)
    return cutout(translate(x, rng, index, purpose, p), rng, index, purpose, p)
