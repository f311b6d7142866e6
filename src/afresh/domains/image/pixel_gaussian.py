"""The trivial model of images: one Gaussian of the pixels for every label."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from afresh.core.rng import Rng

MAX_ROWS = 2000  # training images per label to which its Gaussian is fitted


def pixel_gaussian(x: Tensor, label: Tensor, wanted: Tensor, rng: Rng) -> Tensor:
    """Draw images (len(wanted), C, H, W) from Gaussians, each fitted to the rows of x with the wanted label.

    x (N, C, H, W) float, label (N,) int64. The Gaussian has the maximum-likelihood covariance of the rows and is
    sampled as a random combination of them, mean + (x - mean)^T z / sqrt(rows), without forming a covariance matrix.
    Raises ValueError if no row has a wanted label.
    """
    out = torch.empty(len(wanted), *x.shape[1:])
    for value in np.unique(wanted.numpy()):
        rows = (label == int(value)).nonzero()[:MAX_ROWS, 0]
        if len(rows) == 0:
            raise ValueError(f"no training image has label {value}")
        indices = (wanted == int(value)).nonzero()[:, 0]
        own = x[rows]
        centre = own.mean(0, keepdim=True)
        z = rng.normal("pixel gaussian", indices, (len(rows),))  # (P, R)
        out[indices] = centre + (z @ (own - centre).flatten(1)).view(-1, *x.shape[1:]) / len(rows) ** 0.5
    return out
