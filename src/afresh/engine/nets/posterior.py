"""The posterior and the decoder of a VAE.

Latents are parametrised by u (B, D), which is standard normal under the conditional prior.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from afresh.core import Cond, Modules
from afresh.engine.nets.bags import Bag
from afresh.engine.nets.gaussian import gaussian_kl
from afresh.engine.nets.sequences import Sequences


@dataclass(frozen=True)
class Encoding:
    """The output of the encoder: the embedded condition c (B, cond), and mean and log variance of the posterior of the
    latent z, (B, D) each."""

    c: Tensor
    mean: Tensor
    log_var: Tensor


@dataclass(frozen=True)
class PosteriorDraw:
    """A draw from the posterior: the mean of p(x | u), (B, *shape), and u with its posterior mean and log variance and
    its KL divergence from the prior in nats, (B, D) each."""

    x: Tensor
    u: Tensor
    mean: Tensor
    log_var: Tensor
    kl: Tensor


def encoding(modules: Modules, x: Tensor | Bag | Sequences, cond: Cond) -> Encoding:
    """Encodes fields (B, *shape), bags or sequences."""
    c = modules["conditioning"](cond)
    return Encoding(c, *modules["encoder"](x, c))


def standardised(modules: Modules, encoded: Encoding) -> tuple[Tensor, Tensor]:
    """The mean and log variance of the posterior of u, (B, D) each: z in units of the prior's standard deviation."""
    to_mean, to_log_var = modules["prior"](encoded.c)
    return (encoded.mean - to_mean) * (-0.5 * to_log_var).exp(), encoded.log_var - to_log_var


def latent(modules: Modules, encoded: Encoding, noise: Tensor) -> tuple[Tensor, Tensor]:
    """z of the posterior for standard normal noise, and the divergence of the posterior from the prior in nats,
    (B, D) each."""
    z = encoded.mean + (0.5 * encoded.log_var).exp() * noise
    return z, gaussian_kl(encoded.mean, encoded.log_var, *modules["prior"](encoded.c))


def posterior_draw(modules: Modules, encoded: Encoding, noise: Tensor) -> PosteriorDraw:
    """Draws from the posterior with standard normal noise (B, D)."""
    z, kl = latent(modules, encoded, noise)
    mean, log_var = standardised(modules, encoded)
    return PosteriorDraw(modules["decoder"](z, encoded.c), mean + (0.5 * log_var).exp() * noise, mean, log_var, kl)


def decode(modules: Modules, u: Tensor, cond: Cond, guidance: float = 1.0) -> Tensor:
    """The mean of p(x | u, cond), (B, *shape); of bags, the log-probabilities of all tokens, (B, vocab).

    Guidance is not applied to the prior, where it costs more diversity for the same accuracy of labels.
    """
    c = modules["conditioning"](cond)
    mean, log_var = modules["prior"](c)
    z = mean + (0.5 * log_var).exp() * u
    if guidance != 1:
        null = modules["conditioning"](cond.negative_or_null())
        c = null + guidance * (c - null)
    return modules["decoder"](z, c)
