"""Gaussians of a VAE: the conditional prior (Sohn et al. 2015), the scale of p(x | z) (Rybkin et al. 2021), and their
closed forms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from afresh.engine.nets.conv import start

SCALE_RATE = 10.0  # factor of the learning rate of log sigma
HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Scale(nn.Module):
    """The standard deviation of p(x | z): sigma = exp(rate * exponent), for all values.

    Rybkin et al. 2021 ("Simple and effective VAE training with calibrated decoders", sec. 4) set sigma^2 to the mean
    squared error of each batch, which maximises the likelihood. That depends on how a batch is divided, so here sigma
    is a weight with its own gradient, which converges to the same optimum; it is averaged, saved and used for scores
    like any other weight.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(math.log(std) / SCALE_RATE))

    def forward(self) -> Tensor:
        """log sigma, a scalar."""
        return self.exponent * SCALE_RATE


class Prior(nn.Module):
    """c (B, cond) -> (mean, log variance) of p(z | c), (B, latent) each, float32. Starts as N(0, 1).

    With a fixed prior the encoder can store the class in z, and sampling then draws a z that contradicts the requested
    class: on 28x28 images of clothes half of the samples showed another class.
    """

    def __init__(self, cond: int, latent: int) -> None:
        super().__init__()
        self.last = start(nn.Linear(cond, 2 * latent), 0)

    def forward(self, c: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.last(c).float().chunk(2, 1)
        return mean, log_var


def gaussian_kl(mean: Tensor, log_var: Tensor, to_mean: Tensor, to_log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(to_mean, exp(to_log_var))) of each dimension, in nats."""
    ratio = (log_var - to_log_var).exp()
    return 0.5 * (ratio + (mean - to_mean).square() * (-to_log_var).exp() - 1 - log_var + to_log_var)


def gaussian_nll(error: Tensor, log_sigma: Tensor) -> Tensor:
    """-log N(error; 0, sigma^2) of rows (B, ...), in nats (B,); log sigma is a scalar."""
    square = error.square().flatten(1)
    return 0.5 * square.sum(1) * torch.exp(-2 * log_sigma) + square.shape[1] * (log_sigma + HALF_LOG_2_PI)
