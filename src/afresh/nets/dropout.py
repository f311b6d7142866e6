"""Dropout with the same mask at all positions of an example (Gal and Ghahramani 2016, section 4).

One number is drawn for each channel instead of one for each channel of each token, at a negligible cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.core.rng import Rng


def dropout_mask(rng: Rng, index: Tensor, count: int, width: int, rate: float) -> Tensor:
    """Factors of `count` residual branches, (B, count, width): 0 with probability `rate`, otherwise 1 / (1 - rate).

    `index` (B,) numbers the draws of training; each draw has its own mask.
    """
    u = rng.uniform("dropout", index, (count, width))
    return torch.where(u < rate, 0.0, 1 / (1 - rate))
