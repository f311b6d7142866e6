"""Quantisers: vectors on a grid to codes and back, with gradients through the rounding.

All take z (B, d, *grid) and return the same shape, with each vector replaced by the nearest code vector. `codes`
returns the indices of the code vectors, (B, *grid) int64 (with K codes for each position, (B, *grid, K)), and `vectors`
is its inverse. The modules contain no losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from afresh.core.device import wide

EDGE = 1e-3  # relative margin of the range beyond the outermost levels, which makes them reachable


def straight_through(z: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of z: d out / d z = 1 (Bengio et al. 2013, the straight-through estimator)."""
    return z + (rounded - z).detach()


class FSQ(nn.Module):
    """Finite scalar quantisation (Mentzer et al. 2023): channel i is squashed and rounded to `levels[i]` values.

    The codebook is the product of the levels and is not stored: the digits of a code in the mixed radix `levels` are
    the levels of its channels, of which the first changes fastest. Vectors lie in [-1, 1]. Raises ValueError for fewer
    than 2 levels.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"every channel needs at least 2 levels, not {tuple(levels)}")
        self.levels = tuple(levels)
        self.size = math.prod(self.levels)
        basis = [math.prod(self.levels[:i]) for i in range(len(self.levels))]
        self.register_buffer("count", torch.tensor(self.levels, dtype=torch.float32), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """Squashes z to the range of the levels, which are 1 apart: h tanh(z + s) - o, with 0 mapped to 0 (sec. 3 and
        app. A.1).

        h is half the width of the range. An even number of levels has no middle level: they are shifted by o = 1/2, and
        s = artanh(o / h) maps 0 to 0 (the paper's code uses tan, which does so approximately).
        """
        count = self._along(self.get_buffer("count"), z)
        half = (count - 1) * (1 + EDGE) / 2
        offset = 0.5 * (count % 2 == 0)
        return torch.tanh(z.float() + torch.atanh(offset / half)) * half - offset

    def forward(self, z: Tensor) -> Tensor:
        b = self.bound(z)
        half = self._along(self.get_buffer("count"), z).div(2, rounding_mode="floor")
        return straight_through(b, b.round()) / half

    def codes(self, z: Tensor) -> Tensor:
        """z (B, d, *grid) -> (B, *grid) int64."""
        half = self._along(self.get_buffer("count"), z).div(2, rounding_mode="floor")
        digit = (self.bound(z).round() + half).long()
        return (digit * self._along(self.get_buffer("basis"), z)).sum(1)

    def vectors(self, codes: Tensor) -> Tensor:
        """(B, *grid) int64 of 0 ... size - 1 -> (B, d, *grid) float32."""
        codes = codes.unsqueeze(1)
        count = self._along(self.get_buffer("count"), codes)
        half = count.div(2, rounding_mode="floor")
        digit = codes.div(self._along(self.get_buffer("basis"), codes), rounding_mode="floor") % count.long()
        return (digit.float() - half) / half

    def _along(self, v: Tensor, x: Tensor) -> Tensor:
        """Reshapes v (d,) to broadcast over the channels of x."""
        return v.view(-1, *[1] * (x.dim() - 2))


class ResidualFSQ(nn.Module):
    """Finite scalar quantisation in K steps, each of which quantises the residual of those before, as in Zeghidour et
    al. 2021 (SoundStream, sec. III-C) and Defossez et al. 2022 (EnCodec), whose steps are learned codebooks.

    The first step is FSQ. The residual of its rounding lies within half a level of 0 and needs no squashing: the next
    step divides this interval into `levels[i]` equal parts and returns the centre of the part that contains the
    residual. Every further step thus divides the largest error by `levels[i]`. Codes of all steps are numbered as in
    FSQ. Raises ValueError for fewer than one step or two levels.
    """

    def __init__(self, levels: Sequence[int], depth: int) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"at least one step is needed, not {depth}")
        self.first, self.depth = FSQ(levels), depth
        self.size = self.first.size

    def forward(self, z: Tensor, depth: Tensor | None = None) -> Tensor:
        """Quantises row b of z (B, d, *grid) by its first depth[b] steps, depth (B,) int64 (None: by all)."""
        b = self.first.bound(z)
        total = torch.zeros_like(b)
        for i, (digit, middle, part) in enumerate(self._steps(b)):
            step = (digit - middle) * part
            total = total + (step if depth is None else step * (depth > i).view(-1, *[1] * (z.dim() - 1)))
        return straight_through(b, total) / self._along("count", z).div(2, rounding_mode="floor")

    def codes(self, z: Tensor) -> Tensor:
        """z (B, d, *grid) -> (B, *grid, K) int64."""
        basis = self._along("basis", z)
        return torch.stack([(digit.long() * basis).sum(1) for digit, _, _ in self._steps(self.first.bound(z))], -1)

    def vectors(self, codes: Tensor) -> Tensor:
        """(B, *grid, k) int64 of 0 ... size - 1, the codes of the first k steps -> (B, d, *grid) float32."""
        out = self.first.vectors(codes[..., 0])
        count = self._along("count", out)
        for i in range(1, codes.shape[-1]):
            digit = codes[..., i].unsqueeze(1).div(self._along("basis", out), rounding_mode="floor") % count.long()
            out = out + (digit - (count - 1) / 2) / count**i / count.div(2, rounding_mode="floor")
        return out

    def _steps(self, b: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields for each step the digits of b (like b, from 0), the digit of the value 0, and the value of one unit.

        b (B, d, *grid) is bounded, with levels 1 apart. Without gradients.
        """
        count = self._along("count", b)
        middle = count.div(2, rounding_mode="floor")
        digit, part = b.detach().round() + middle, torch.ones_like(count)
        yield digit, middle, part
        residual = b.detach() - (digit - middle)  # within part / 2 of 0
        for _ in range(1, self.depth):
            digit = ((residual / part + 0.5) * count).floor().clamp_min(0).minimum(count - 1)
            middle, part = (count - 1) / 2, part / count
            yield digit, middle, part
            residual = residual - (digit - middle) * part

    def _along(self, name: str, x: Tensor) -> Tensor:
        """A buffer (d,) of the first step, reshaped to broadcast over the channels of x."""
        return self.first.get_buffer(name).view(-1, *[1] * (x.dim() - 2))


class VQ(nn.Module):
    """Vector quantisation (van den Oord et al. 2017): the nearest of `size` learned vectors, by |z - e|^2.

    The gradient is passed straight through to z; a term of the loss trains the codebook (families/autoencoder.py).
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Parameter(torch.randn(size, channels))

    def distances(self, z: Tensor) -> Tensor:
        """|z - e_k|^2 of every position and code, (B, positions, K).

        Always in float32: the distances of similar codes differ by less than the precision of bfloat16.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows, book = z.float().flatten(2).mT, self.embedding.float()
            return rows.square().sum(2, keepdim=True) - 2 * rows @ book.T + book.square().sum(1)

    def codes(self, z: Tensor) -> Tensor:
        """z (B, d, *grid) -> (B, *grid) int64."""
        with torch.no_grad():
            return self.distances(z).argmin(2).view(len(z), *z.shape[2:])

    def vectors(self, codes: Tensor) -> Tensor:
        """(B, *grid) int64 of 0 ... size - 1 -> (B, d, *grid), float32, with a gradient to the codebook."""
        return self.embedding[codes].movedim(-1, 1)

    def forward(self, z: Tensor) -> Tensor:
        return straight_through(z.float(), self.vectors(self.codes(z)))


class NoQuantiser(nn.Module):
    """Leaves latents as they are."""

    def forward(self, z: Tensor) -> Tensor:
        return z


def usage(codes: Tensor, size: int) -> tuple[float, float]:
    """(share of the codes in use, perplexity exp(H) of their frequencies) of `codes`, int64 of any shape."""
    p = wide(torch.bincount(codes.flatten(), minlength=size)) / max(1, codes.numel())
    used = p[p > 0]
    return len(used) / size, float(torch.exp(-(used * used.log()).sum()))
