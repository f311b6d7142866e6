"""Data augmentation that keeps networks from memorising a small data set.

For a critic (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training"): real and generated
fields are augmented alike before the critic sees them, and gradients reach the generator through the augmentation
(`augment`). Colour operations apply to images of three channels only: in other fields the level of a channel has a
meaning.

For a denoiser (Karras et al. 2022, EDM, app. F.2): images are transformed geometrically, and the network is
conditioned on the parameters of the transform (`moves`, `warp`, `MoveEmbedding`). It learns transformed images as
separate distributions, so that samples drawn without a transform do not show one, even for letters, which must not be
mirrored.

Each operation is applied to each example with probability `p`, drawn with the example's index as key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core.device import tensor_on, wide
from afresh.core.rng import Rng

SHIFT = 1 / 8  # largest translation, as a share of an axis' length
HOLE = 1 / 2  # side of the cut-out box, as a share of an axis' length
LEAST = (
    8  # fields with an axis of at most so many cells are not moved: a shift is under a cell, a rotation mostly blurs
)
MOVES = 5  # parameters of a geometric transform
ZOOM = 0.2  # standard deviation of log2 of the scale
TURN = math.pi / 12  # largest rotation, radians


def _spread(v: Tensor, x: Tensor) -> Tensor:
    """Reshapes v (B,) to (B, 1, ..., 1), with as many dimensions as x."""
    return v.view(-1, *[1] * (x.dim() - 1))


def colour(x: Tensor, rng: Rng, index: Tensor, purpose: str, p: float) -> Tensor:
    """Brightness +-0.5, saturation x0-2 and contrast x0.5-1.5, in this order (`color` in the code of Zhao et al.)."""
    u = rng.uniform(f"{purpose}/colour", index, (6,)).to(x.dtype)  # three amounts, three probabilities
    applied = (u[:, 3:] < p).to(x.dtype)
    x = x + _spread((u[:, 0] - 0.5) * applied[:, 0], x)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _spread(1 + (2 * u[:, 1] - 1) * applied[:, 1], x)
    level = x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
    return level + (x - level) * _spread(1 + (u[:, 2] - 0.5) * applied[:, 2], x)


def translate(x: Tensor, rng: Rng, index: Tensor, purpose: str, p: float) -> Tensor:
    """Translates by whole cells, up to an eighth of each axis; uncovered cells are 0."""
    applied = rng.uniform(f"{purpose}/translate/strike", index) < p  # (B,)
    for axis, n in enumerate(x.shape[2:], start=2):
        far = max(1, round(n * SHIFT)) if n > 1 else 0
        u = rng.uniform(f"{purpose}/translate/{axis}", index)
        by = torch.where(applied, (u * (2 * far + 1)).long() - far, 0)  # (B,) in [-far, far]
        source = torch.arange(n, device=x.device) + by[:, None]  # (B, n)
        shape = [len(x), *[1] * (axis - 1), n, *[1] * (x.dim() - axis - 1)]
        inside = ((source >= 0) & (source < n)).view(shape).to(x.dtype)
        x = x.gather(axis, source.clamp(0, n - 1).view(shape).expand_as(x)) * inside
    return x


def cutout(x: Tensor, rng: Rng, index: Tensor, purpose: str, p: float) -> Tensor:
    """Sets a box of half of each axis to 0; its centre is anywhere in the field."""
    applied = rng.uniform(f"{purpose}/cutout/strike", index) < p  # (B,)
    hole = _spread(applied, x)  # grows to (B, 1, *grid)
    for axis, n in enumerate(x.shape[2:], start=2):
        side = max(1, round(n * HOLE))
        centre = (rng.uniform(f"{purpose}/cutout/{axis}", index) * (n + 1)).long()  # (B,) in [0, n]
        away = torch.arange(n, device=x.device) - (centre - side // 2)[:, None]  # (B, n)
        shape = [len(x), *[1] * (axis - 1), n, *[1] * (x.dim() - axis - 1)]
        hole = hole & ((away >= 0) & (away < side)).view(shape)
    return torch.where(hole, torch.zeros((), dtype=x.dtype, device=x.device), x)


def augment(x: Tensor, rng: Rng, index: Tensor, purpose: str, p: float) -> Tensor:
    """Colour (images of three channels only), translation and cut-out of x (B, C, *grid); returns x if p is 0."""
    if p <= 0:
        return x
    if x.dim() == 4 and x.shape[1] == 3:
        x = colour(x, rng, index, purpose, p)
    return cutout(translate(x, rng, index, purpose, p), rng, index, purpose, p)


# --------------------------------------------------------------------------- transforms that condition a denoiser


def movable(grid: Sequence[int]) -> bool:
    """Whether fields on the grid are transformed: the grid has two axes, each longer than LEAST cells."""
    return len(grid) == 2 and min(grid) > LEAST


def farthest(n: int) -> int:
    """The largest shift along an axis of n cells, in cells."""
    return max(1, round(n * SHIFT))


def moves(rng: Rng, index: Tensor, purpose: str, p: float, grid: Sequence[int]) -> Tensor:
    """Draws the parameters of each example's transform, (B, MOVES) float32 of about unit size; zero for no transform.

    The columns: mirrored left to right (0 or 1); log2 of the scale divided by ZOOM, N(0, 1); the rotation divided by
    TURN, uniform in [-1, 1); the shifts down and to the right divided by `farthest` of each axis. Shifts are whole
    cells, which keeps images sharp. Each of the four operations is applied with probability p.
    """
    applied = (rng.uniform(f"{purpose}/strike", index, (4,)) < p).float()
    zoom = rng.normal(f"{purpose}/zoom", index)
    u = rng.uniform(f"{purpose}/amount", index, (3,))
    far = tensor_on(index.device, [farthest(n) for n in grid])
    shift = ((u[:, 1:] * (2 * far + 1)).long() - far) / far
    return torch.cat(
        [
            torch.stack([applied[:, 0], applied[:, 1] * zoom, applied[:, 2] * (2 * u[:, 0] - 1)], 1),
            applied[:, 3:] * shift,
        ],
        1,
    )


def mirror(mirrored: Tensor) -> Tensor:
    """The parameters of the transform of examples that are mirrored or not (B,), as `moves` draws them."""
    return F.pad(mirrored.float()[:, None], (0, MOVES - 1))


def warp(x: Tensor, how: Tensor) -> Tensor:
    """Transforms x (B, C, H, W) by the parameters `how` (B, MOVES) of `moves`.

    Images are mirrored, then scaled and rotated about their centre, then shifted. Uncovered cells show the image's
    reflection; values between cells are interpolated bilinearly. Rows of zeros leave an image unchanged, bit for bit.
    """
    rows = how.any(1).nonzero()[:, 0]
    if not len(rows):
        return x
    h, w = x.shape[2:]
    flip, zoom, turn, down, right = wide(how[rows]).unbind(1)  # float64: the same result in any batch
    scale, angle = torch.exp2(-ZOOM * zoom), TURN * turn
    c, s = ((scale * f(angle)).to(x.device, torch.float32).view(-1, 1, 1) for f in (torch.cos, torch.sin))
    whole = (1 - 2 * flip, down * farthest(h), right * farthest(w))
    mirror, down, right = (v.to(x.device, torch.float32).view(-1, 1, 1) for v in whole)
    b = torch.arange(h, device=x.device).view(1, h, 1) - (h - 1) / 2 - down  # from the centre, in cells: (R, H, 1)
    a = torch.arange(w, device=x.device).view(1, 1, w) - (w - 1) / 2 - right  # (R, 1, W)
    source = torch.stack([mirror * (c * a + s * b) * (2 / w), (c * b - s * a) * (2 / h)], 3)  # (R, H, W, 2)
    moved = F.grid_sample(x[rows].float(), source, "bilinear", "reflection", align_corners=False)
    return x.index_copy(0, rows, moved.to(x.dtype))


class MoveEmbedding(nn.Module):
    """Embeds the parameters of transforms, (B, MOVES) to (B, width), to be added to the embedding of the time.

    There are no biases: the embedding of an example that is not transformed is always zero, so that samplers can leave
    it out. The last matrix starts at zero. The optimiser treats both matrices as hidden ones: AdamW instead of Muon
    learnt them too slowly in a toy of 200 steps, whose samples showed mirrored images (docs/development/log.md).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, width, bias=False)
        nn.init.zeros_(last.weight)
        self.net = nn.Sequential(nn.Linear(MOVES, width, bias=False), nn.SiLU(), last)

    def forward(self, how: Tensor) -> Tensor:
        out: Tensor = self.net(how)
        return out
