"""Rewards of images that are functions of their fields, and so differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from afresh.data.image.kind import IMAGE
from afresh.engine.alignment.rewards.reward import Array, Request, Reward, ScoringError

Field = Callable[[Tensor], Tensor]
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)


def to_field(pixels: np.ndarray) -> Tensor:
    """uint8 (H, W, C) -> float64 (C, H, W) in [-1, 1]."""
    return torch.tensor(np.moveaxis(pixels, 2, 0)).double() / 127.5 - 1  # a copy, because pixels may be read-only


def of_field(on_field: Field) -> Reward:
    """The reward with a differentiable form. Images of the same size are scored together."""

    def score(items: Sequence[np.ndarray], requests: Sequence[Request]) -> Array:
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, item in enumerate(items):
            if item.ndim != 3 or item.shape[2] not in (1, 3) or item.dtype != np.uint8 or not item.size:
                raise ScoringError(f"an image is uint8 of shape (H, W, 1 or 3), not {item.dtype} {item.shape}.", i)
            shapes.setdefault(item.shape, []).append(i)
        out = np.zeros(len(items))
        with torch.no_grad():
            for rows in shapes.values():
                out[rows] = on_field(torch.stack([to_field(items[i]) for i in rows])).numpy()
        return out

    return Reward("", score, IMAGE, on_field)


def dct(n: int) -> Tensor:
    """The orthonormal discrete cosine transform, float64 (n, n), one row for each frequency (Ahmed et al. 1974, eq.
    1)."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows
