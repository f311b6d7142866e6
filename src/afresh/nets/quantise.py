"""Quantisers: vectors on a grid to codes and back, with gradients through the rounding.

All take z (B, d, *grid) and give the same shape, each vector moved to the nearest of the code vectors; `codes` gives
the numbers of these, (B, *grid) int64 (of the residual one (B, *grid, K), K numbers a place), and `vectors` the way
back. Networks know nothing of losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

EDGE = 1e-3  # how far beyond its outermost levels an axis reaches, so that they are not only limits


def straight_through(z: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of z: d out / d z = 1 (Bengio et al. 2013, the straight-through estimator)."""
    return z + (rounded - z).detach()


class FSQ(nn.Module):
    """Finite scalar quantisation (Mentzer et al. 2023): channel i is squashed and rounded to `levels[i]` values.

    The codebook is the product of the levels and is nowhere stored; code k has the digits of k in the mixed radix
    `levels`, the first channel changing fastest. Vectors lie in [-1, 1]. Raises ValueError for fewer than 2 levels.
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
        """z squashed to between the outermost levels, 1 apart: h tanh(z + s) - o, which keeps 0 (sec. 3 and app. A.1).

        h is half the number of steps. An even number of levels has none in the middle: o = 1/2 moves them down, and
        s = artanh(o / h) moves 0 back (the paper's code takes tan, which does so only nearly).
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
        """(d,) shaped to broadcast over the channels of x."""
        return v.view(-1, *[1] * (x.dim() - 2))


class ResidualFSQ(nn.Module):
    """Finite scalar quantisation in K steps, each of what the ones before left over, as in Zeghidour et al. 2021
    (SoundStream, sec. III-C) and Defossez et al. 2022 (EnCodec), whose steps are learnt codebooks.

    The first step is FSQ. What its rounding leaves of a channel lies within half a level of 0, without another
    squashing: the next step cuts that interval into `levels[i]` equal parts and takes the middle of the one it falls
    in, so that every further step divides the greatest error by `levels[i]`. Codes of every step are numbered as those
    of FSQ. Raises ValueError for fewer than one step or two levels.
    """

    def __init__(self, levels: Sequence[int], depth: int) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"at least one step is needed, not {depth}")
        self.first, self.depth = FSQ(levels), depth
        self.size = self.first.size

    def forward(self, z: Tensor, depth: Tensor | None = None) -> Tensor:
        """z (B, d, *grid), moved to what the first depth[b] steps say of row b, depth (B,) int64; None: all."""
        b = self.first.bound(z)
        total = torch.zeros_like(b)
        for i, (digit, middle, part) in enumerate(self._steps(b)):
            said = (digit - middle) * part
            total = total + (said if depth is None else said * (depth > i).view(-1, *[1] * (z.dim() - 1)))
        return straight_through(b, total) / self._along("count", z).div(2, rounding_mode="floor")

    def codes(self, z: Tensor) -> Tensor:
        """(B, *grid, K) int64."""
        basis = self._along("basis", z)
        return torch.stack([(digit.long() * basis).sum(1) for digit, _, _ in self._steps(self.first.bound(z))], -1)

    def vectors(self, codes: Tensor) -> Tensor:
        """(B, *grid, k) int64 of 0 ... size - 1, of the first k of K steps -> (B, d, *grid) float32."""
        out = self.first.vectors(codes[..., 0])
        count = self._along("count", out)
        for i in range(1, codes.shape[-1]):
            digit = codes[..., i].unsqueeze(1).div(self._along("basis", out), rounding_mode="floor") % count.long()
            out = out + (digit - (count - 1) / 2) / count**i / count.div(2, rounding_mode="floor")
        return out

    def _steps(self, b: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of bounded b (B, d, *grid), whose levels are 1 apart, for each step: the digits from 0 (like b), the digit
        that stands for 0, and what one more is worth. Without gradients."""
        count = self._along("count", b)
        middle = count.div(2, rounding_mode="floor")
        digit, part = b.detach().round() + middle, torch.ones_like(count)
        yield digit, middle, part
        left = b.detach() - (digit - middle)  # within part / 2 of 0
        for _ in range(1, self.depth):
            digit = ((left / part + 0.5) * count).floor().clamp_min(0).minimum(count - 1)
            middle, part = (count - 1) / 2, part / count
            yield digit, middle, part
            left = left - (digit - middle) * part

    def _along(self, name: str, x: Tensor) -> Tensor:
        """A buffer of the first step, (d,), shaped to broadcast over the channels of x."""
        return self.first.get_buffer(name).view(-1, *[1] * (x.dim() - 2))


class VQ(nn.Module):
    """Vector quantisation (van den Oord et al. 2017): the nearest of `size` learned vectors, by |z - e|^2.

    The gradient passes straight through to z; the codebook learns by a term of the loss (families/autoencoder.py).
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Parameter(torch.randn(size, channels))

    def distances(self, z: Tensor) -> Tensor:
        """|z - e_k|^2 of every place and code, (B, places, K), in float32: near codes differ by less than bfloat16
        sees."""
        with torch.autocast(z.device.type, enabled=False):
            rows, book = z.float().flatten(2).mT, self.embedding.float()
            return rows.square().sum(2, keepdim=True) - 2 * rows @ book.T + book.square().sum(1)

    def codes(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.distances(z).argmin(2).view(len(z), *z.shape[2:])

    def vectors(self, codes: Tensor) -> Tensor:
        """(B, *grid) int64 of 0 ... size - 1 -> (B, d, *grid), float32, with a gradient to the codebook."""
        return self.embedding[codes].movedim(-1, 1)

    def forward(self, z: Tensor) -> Tensor:
        return straight_through(z.float(), self.vectors(self.codes(z)))


class Whole(nn.Module):
    """No quantiser: latents stay the real numbers that they are."""

    def forward(self, z: Tensor) -> Tensor:
        return z


def usage(codes: Tensor, size: int) -> tuple[float, float]:
    """(share of the codes that occur, perplexity exp(H) of how often) over all of `codes`, int64 of any shape."""
    p = torch.bincount(codes.flatten(), minlength=size).double() / max(1, codes.numel())
    used = p[p > 0]
    return len(used) / size, float(torch.exp(-(used * used.log()).sum()))
