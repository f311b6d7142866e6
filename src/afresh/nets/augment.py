"""Changes of training examples that keep a small data set from being learnt by heart.

For a critic (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training"): real and made fields
alike are changed before it sees them, and gradients reach the generator through the change (`augment`). Colour
operations apply to pictures of three channels only: elsewhere a channel is a quantity whose level means something.

For a denoiser (Karras et al. 2022, EDM, app. F.2): pictures are moved, and the network is told how (`moves`, `warp`,
`MoveEmbedding`). It learns the moved pictures as another distribution than the others, and when it is asked for one
that is not moved it makes one that is not, even of letters, which no mirror may show.

Each operation strikes each example with probability `p`, drawn from the example's index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core.rng import Rng

SHIFT = 1 / 8  # farthest translation, of an axis' length
HOLE = 1 / 2  # side of the cut-out box, of an axis' length
LEAST = 8  # cells of a side up to which a field is not moved: an eighth is no cell, and a turn mostly blur
MOVES = 5  # numbers that say how a picture was moved
ZOOM = 0.2  # standard deviation of the binary logarithm of its scale
TURN = math.pi / 12  # farthest turn, radians


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


# --------------------------------------------------------------------------- moved, and told so


def movable(grid: Sequence[int]) -> bool:
    """Whether fields on the grid are moved: those over two axes of more than LEAST cells."""
    return len(grid) == 2 and min(grid) > LEAST


def farthest(n: int) -> int:
    """Cells by which an axis of n is moved at most."""
    return max(1, round(n * SHIFT))


def moves(rng: Rng, index: Tensor, purpose: str, p: float, grid: Sequence[int]) -> Tensor:
    """How each example is moved, (B, MOVES) float32 of about unit size, all zero where it is not.

    Mirrored left to right (0 or 1); the binary logarithm of its scale over ZOOM, N(0, 1); its turn over TURN, uniform
    in [-1, 1); its shift down and to the right, in whole cells that keep it sharp, over `farthest` of each axis. Each
    of the four strikes with probability p.
    """
    strike = (rng.uniform(f"{purpose}/strike", index, (4,)) < p).float()
    zoom = rng.normal(f"{purpose}/zoom", index)
    u = rng.uniform(f"{purpose}/amount", index, (3,))
    far = torch.tensor([farthest(n) for n in grid], device=index.device)
    shift = ((u[:, 1:] * (2 * far + 1)).long() - far) / far
    return torch.cat(
        [torch.stack([strike[:, 0], strike[:, 1] * zoom, strike[:, 2] * (2 * u[:, 0] - 1)], 1), strike[:, 3:] * shift],
        1,
    )


def warp(x: Tensor, how: Tensor) -> Tensor:
    """x (B, C, H, W) moved as the rows of `how` (B, MOVES) say: mirrored, then scaled and turned about its middle, then
    shifted. What comes into view is the picture's reflection; between cells values are bilinear. Rows of zeros stay as
    they are, bit for bit."""
    rows = how.any(1).nonzero()[:, 0]
    if not len(rows):
        return x
    h, w = x.shape[2:]
    flip, zoom, turn, down, right = how[rows].double().unbind(1)  # float64: a row's numbers are then the same anywhere
    scale, angle = torch.exp2(-ZOOM * zoom), TURN * turn
    c, s = ((scale * f(angle)).float().view(-1, 1, 1) for f in (torch.cos, torch.sin))
    mirror, down, right = (v.float().view(-1, 1, 1) for v in (1 - 2 * flip, down * farthest(h), right * farthest(w)))
    b = torch.arange(h, device=x.device).view(1, h, 1) - (h - 1) / 2 - down  # from the middle, in cells: (R, H, 1)
    a = torch.arange(w, device=x.device).view(1, 1, w) - (w - 1) / 2 - right  # (R, 1, W)
    source = torch.stack([mirror * (c * a + s * b) * (2 / w), (c * b - s * a) * (2 / h)], 3)  # (R, H, W, 2)
    moved = F.grid_sample(x[rows].float(), source, "bilinear", "reflection", align_corners=False)
    return x.index_copy(0, rows, moved.to(x.dtype))


class MoveEmbedding(nn.Module):
    """How examples were moved, (B, MOVES), to what is added to the embedding of the time, (B, width).

    Without biases, so that nothing is added where nothing was moved, whatever it has learnt: a sampler can do without
    it. Nothing is added at all at first. Its matrices are hidden ones to the optimiser: moved by AdamW instead of
    Muon, they were too slow on a toy of 200 steps, whose samples showed mirrored pictures (docs/log.md).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, width, bias=False)
        nn.init.zeros_(last.weight)
        self.net = nn.Sequential(nn.Linear(MOVES, width, bias=False), nn.SiLU(), last)

    def forward(self, how: Tensor) -> Tensor:
        out: Tensor = self.net(how)
        return out
