"""Dropout whose mask is one for all places of an example (Gal and Ghahramani 2016, section 4).

A number is drawn for each channel instead of for each channel of each token, which costs nothing beside the network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.core.rng import Rng


def kept(rng: Rng, index: Tensor, count: int, width: int, rate: float) -> Tensor:
    """Factors for `count` steps of the residual stream, (B, count, width): 0 with probability `rate`, else
    1 / (1 - rate).

    `index` (B,) numbers the draws of training, each of which has a mask of its own.
    """
    u = rng.uniform("dropout", index, (count, width))
    return torch.where(u < rate, 0.0, 1 / (1 - rate))
