"""A ladder of latents over grids from coarse to fine, for the hierarchical VAE.

Sonderby et al. 2016 (ladder VAE), Child 2021 ("Very deep VAEs generalize autoregressive models", sec. 3), Vahdat and
Kautz 2020 (NVAE, sec. 3.2), scaled down: a single top-down path, shared by sampling and inference, with latents of a
few values for each position on the coarser grids. They are parametrised by a standard normal u: the decoder applies the
mean and scale of the prior, which depend on all coarser latents. NVAE's residual posterior N(m + s dm, (s ds)^2) over a
prior N(m, s^2) then becomes N(dm, ds^2) over N(0, 1), and the prior's parameters do not enter the KL term.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.nets.conv import Encoder, ModulatedLevel, conv, dense, folded, grow, ladder, start, widths
from afresh.nets.patches import unfold

WIDEST = 6.0  # bound on the absolute log deviation of a prior and log variance of a posterior


class Pyramid(nn.Module):
    """(x (B, C, *grid), c (B, cond)) -> mean and log variance of the topmost latent, activations on every grid."""

    def __init__(
        self, shape: Sequence[int], cond: int, latent: int, width: int, blocks: int, most: int = 4, patch: int = 1
    ) -> None:
        super().__init__()
        self.net = Encoder(shape, cond, latent, width, blocks, most, patch)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        features = self.net.features(x, c)
        return *self.net.summary(features[-1]), features


class Rung(nn.Module):
    """The latents of one grid: `places` values for each position, given the activations of the top-down path."""

    def __init__(self, dims: int, channels: int, places: int) -> None:
        super().__init__()
        self.prior = start(conv(dims, channels, 2 * places, 1), 0)
        self.posterior = start(conv(dims, 2 * channels, 2 * places, 3), 0)  # starts equal to the prior
        self.write = start(conv(dims, places, channels, 1), 1)

    def read(self, h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log variance) of u's posterior relative to the prior; `seen`: the encoder's activations there."""
        mean, log_var = self.posterior(F.silu(torch.cat([h, seen], 1))).float().chunk(2, 1)
        return mean, WIDEST * torch.tanh(log_var / WIDEST)

    def add(self, h: Tensor, u: Tensor) -> Tensor:
        """The activations h with the latents u, scaled by the prior, added to them."""
        mean, log_std = self.prior(F.silu(h)).float().chunk(2, 1)
        return h + self.write((mean + (WIDEST * torch.tanh(log_std / WIDEST)).exp() * u).to(h.dtype))


class LadderDecoder(nn.Module):
    """(z (B, dim), c (B, cond)) -> mean of x, (B, C, *grid), float32.

    z consists of the topmost latent, as in `conv.Decoder`, followed by the u of `rungs` grids, coarse to fine.
    """

    def __init__(
        self,
        shape: Sequence[int],
        cond: int,
        latent: int,
        width: int,
        blocks: int,
        most: int,
        patch: int,
        rungs: int,
        places: int,
    ) -> None:
        super().__init__()
        self.grid, self.patch, shape = shape[1:], patch, folded(shape, patch)
        self.grids = ladder(shape[1:])
        dims, channels = len(shape) - 1, widths(len(self.grids), width, most)
        self.rungs = min(rungs, len(self.grids))
        self.latent, self.seed = latent, (channels[-1], *self.grids[-1])
        self.shapes = [(places, *g) for g in self.grids[::-1][: self.rungs]]
        self.dim = latent + sum(map(math.prod, self.shapes))
        self.embed = nn.Sequential(nn.Linear(latent + cond, cond), nn.SiLU(), nn.Linear(cond, cond), nn.SiLU())
        self.first = nn.Linear(latent + cond, math.prod(self.seed))
        self.steps = nn.ModuleList(Rung(dims, c, places) for c in channels[::-1][: self.rungs])
        self.levels = nn.ModuleList(ModulatedLevel(dims, c, cond, blocks) for c in channels)
        self.ups = nn.ModuleList(conv(dims, b, a, 1) for a, b in pairwise(channels))
        self.norm = nn.GroupNorm(math.gcd(width, max(1, width // 16)), width)
        self.last = start(conv(dims, width, shape[0], 3), 0)

    def split(self, z: Tensor) -> list[Tensor]:
        """Splits z, (B, dim) or (B, dim - latent), into the u of each rung, (B, places, *grid)."""
        parts = z[:, -(self.dim - self.latent) :].split([math.prod(s) for s in self.shapes], 1)
        return [p.reshape(-1, *s) for p, s in zip(parts, self.shapes, strict=True)]

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        latents = self.split(z)
        return self.walk(z[:, : self.latent], c, lambda i, h: latents[i])

    def infer(self, top: Tensor, c: Tensor, seen: Sequence[Tensor], noise: Tensor) -> tuple[Tensor, ...]:
        """Draws from the posterior: top (B, latent), the encoder's activations on every grid, noise (B, dim - latent).

        Returns the mean of x; and u, its posterior mean and its posterior log variance, (B, dim - latent) each.
        """
        drawn, means, log_vars = list[Tensor](), list[Tensor](), list[Tensor]()
        e = self.split(noise)

        def draw(i: int, h: Tensor) -> Tensor:
            rung = self.steps[i]
            assert isinstance(rung, Rung)
            mean, log_var = rung.read(h, seen[-1 - i])
            u = mean + (0.5 * log_var).exp() * e[i]
            for parts, part in ((drawn, u), (means, mean), (log_vars, log_var)):
                parts.append(part.flatten(1))
            return u

        x = self.walk(top, c, draw)
        return x, torch.cat(drawn, 1), torch.cat(means, 1), torch.cat(log_vars, 1)

    def walk(self, top: Tensor, c: Tensor, latents: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The top-down path to the mean of x; `latents(i, h)` returns the u of rung i given the activations h there."""
        both = torch.cat([top, c], 1)
        e = self.embed(both)
        h = dense(self.first(both).view(-1, *self.seed))
        for j, i in enumerate(reversed(range(len(self.levels)))):
            if j:
                h = grow(self.ups[i](h), self.grids[i])
            if j < self.rungs:
                rung = self.steps[j]
                assert isinstance(rung, Rung)
                h = rung.add(h, latents(j, h))
            h = self.levels[i](h, e)
        return unfold(self.last(F.silu(self.norm(h))).float(), self.patch, self.grid)
