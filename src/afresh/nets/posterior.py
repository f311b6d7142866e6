"""What a VAE's networks, by name, make of an example and of latents: flat and hierarchical ones alike.

Latents are counted as u (B, D), standard normal under the prior of the condition.
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
class Look:
    """What the encoder makes of x: condition's vector, posterior of the topmost latent z, values on every grid."""

    c: Tensor
    mean: Tensor
    log_var: Tensor
    seen: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Draw:
    """One draw of the posterior: the mean of p(x | u), (B, *shape); u; and, given what was drawn above, the mean and
    log variance of u and its KL from the prior, nats, (B, D) each."""

    x: Tensor
    u: Tensor
    mean: Tensor
    log_var: Tensor
    kl: Tensor


def look(modules: Modules, x: Tensor, cond: Cond) -> Look:
    c = modules["conditioning"](cond)
    mean, log_var, *more = modules["encoder"](x, c)
    return Look(c, mean, log_var, more[0] if more else ())


def whitened(seen: Look, to_mean: Tensor, to_log_var: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, log variance) of the topmost u: the posterior of z in deviations of the prior."""
    return (seen.mean - to_mean) * (-0.5 * to_log_var).exp(), seen.log_var - to_log_var


def draw(modules: Modules, seen: Look, noise: Tensor) -> Draw:
    """noise (B, D) to a draw."""
    to_mean, to_log_var = modules["prior"](seen.c)
    top = noise[:, : seen.mean.shape[1]]
    z = seen.mean + (0.5 * seen.log_var).exp() * top
    kl = gaussian_kl(seen.mean, seen.log_var, to_mean, to_log_var)
    mean, log_var = whitened(seen, to_mean, to_log_var)
    u = mean + (0.5 * log_var).exp() * top
    decoder = modules["decoder"]
    if not isinstance(decoder, LadderDecoder):
        return Draw(decoder(z, seen.c), u, mean, log_var, kl)
    x, below, below_mean, below_log_var = decoder.infer(z, seen.c, seen.seen, noise[:, top.shape[1] :])
    below_kl = gaussian_kl(below_mean, below_log_var, *torch.zeros(2, 1, device=kl.device))
    pairs = ((u, below), (mean, below_mean), (log_var, below_log_var), (kl, below_kl))
    return Draw(x, *(torch.cat(p, 1) for p in pairs))


def decode(modules: Modules, u: Tensor, cond: Cond, guidance: float = 1.0) -> Tensor:
    """The mean of p(x | u, cond), (B, *shape). Guidance stays out of the prior: there, for the same labels right, it
    costs more variety."""
    c = modules["conditioning"](cond)
    mean, log_var = modules["prior"](c)
    latent = mean.shape[1]
    z = torch.cat([mean + (0.5 * log_var).exp() * u[:, :latent], u[:, latent:]], 1)
    if guidance != 1:
        null = modules["conditioning"](cond.away())
        c = null + guidance * (c - null)
    return modules["decoder"](z, c)
