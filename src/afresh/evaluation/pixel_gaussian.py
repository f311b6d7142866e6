"""The trivial model of pictures: one Gaussian of the pixels for every label."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from afresh.core.rng import Rng

MOST_ROWS = 2000  # of a label that its Gaussian is fitted to


def pixel_gaussian(x: Tensor, label: Tensor, wanted: Tensor, rng: Rng) -> Tensor:
    """Draw pictures (len(wanted), C, H, W) from the Gaussian fitted to the rows of x with each wanted label.

    x (N, C, H, W) float, label (N,) int64. The maximum-likelihood covariance of the rows, sampled as a random
    combination of them, mean + (x - mean)^T z / sqrt(rows), so that no covariance matrix is formed.
    """
    out = torch.empty(len(wanted), *x.shape[1:])
    for value in np.unique(wanted.numpy()):
        rows = (label == int(value)).nonzero()[:MOST_ROWS, 0]
        if len(rows) == 0:
            raise ValueError(f"no training picture has label {value}")
        places = (wanted == int(value)).nonzero()[:, 0]
        own = x[rows]
        centre = own.mean(0, keepdim=True)
        z = rng.normal("pixel gaussian", places, (len(rows),))  # (P, R)
        out[places] = centre + (z @ (own - centre).flatten(1)).view(-1, *x.shape[1:]) / len(rows) ** 0.5
    return out
