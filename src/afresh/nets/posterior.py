"""The posterior and the decoder of a VAE, for flat and hierarchical latents alike.

Latents are parametrised by u (B, D), which is standard normal under the conditional prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import Cond, Modules
from afresh.nets.gaussian import gaussian_kl
from afresh.nets.hierarchy import LadderDecoder


@dataclass(frozen=True)
class Encoding:
    """The output of the encoder: the embedded condition, the posterior of the topmost latent z, and the activations on
    every grid (of hierarchical latents only)."""

    c: Tensor
    mean: Tensor
    log_var: Tensor
    features: Sequence[Tensor] = ()


@dataclass(frozen=True)
class PosteriorDraw:
    """A draw from the posterior: the mean of p(x | u), (B, *shape), and u with its posterior mean and log variance and
    its KL divergence from the prior in nats, (B, D) each. These depend on the coarser latents that were drawn."""

    x: Tensor
    u: Tensor
    mean: Tensor
    log_var: Tensor
    kl: Tensor


def encoding(modules: Modules, x: Tensor, cond: Cond) -> Encoding:
    """Encodes x (B, *shape)."""
    c = modules["conditioning"](cond)
    mean, log_var, *more = modules["encoder"](x, c)
    return Encoding(c, mean, log_var, more[0] if more else ())


def whitened(encoded: Encoding, to_mean: Tensor, to_log_var: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, log variance) of the topmost u: the posterior of z in units of the prior's standard deviation."""
    return (encoded.mean - to_mean) * (-0.5 * to_log_var).exp(), encoded.log_var - to_log_var


def posterior_draw(modules: Modules, encoded: Encoding, noise: Tensor) -> PosteriorDraw:
    """Draws from the posterior with standard normal noise (B, D)."""
    to_mean, to_log_var = modules["prior"](encoded.c)
    top = noise[:, : encoded.mean.shape[1]]
    z = encoded.mean + (0.5 * encoded.log_var).exp() * top
    kl = gaussian_kl(encoded.mean, encoded.log_var, to_mean, to_log_var)
    mean, log_var = whitened(encoded, to_mean, to_log_var)
    u = mean + (0.5 * log_var).exp() * top
    decoder = modules["decoder"]
    if not isinstance(decoder, LadderDecoder):
        return PosteriorDraw(decoder(z, encoded.c), u, mean, log_var, kl)
    x, below, below_mean, below_log_var = decoder.infer(z, encoded.c, encoded.features, noise[:, top.shape[1] :])
    below_kl = gaussian_kl(below_mean, below_log_var, *torch.zeros(2, 1, device=kl.device))
    pairs = ((u, below), (mean, below_mean), (log_var, below_log_var), (kl, below_kl))
    return PosteriorDraw(x, *(torch.cat(p, 1) for p in pairs))


def decode(modules: Modules, u: Tensor, cond: Cond, guidance: float = 1.0) -> Tensor:
    """The mean of p(x | u, cond), (B, *shape).

    Guidance is not applied to the prior, where it costs more diversity for the same accuracy of labels.
    """
    c = modules["conditioning"](cond)
    mean, log_var = modules["prior"](c)
    latent = mean.shape[1]
    z = torch.cat([mean + (0.5 * log_var).exp() * u[:, :latent], u[:, latent:]], 1)
    if guidance != 1:
        null = modules["conditioning"](cond.away())
        c = null + guidance * (c - null)
    return modules["decoder"](z, c)
