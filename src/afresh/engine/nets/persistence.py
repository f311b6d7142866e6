"""What persists of a field on a ring, mode by mode: where the next state begins, and how large what is added may be.

A network that adds a change to the last state adds errors of one size at all wavenumbers, and a rollout sums them up.
Where a field has hardly any energy at high wavenumbers, they soon exceed it by many orders of magnitude. Here a mode
x_k of the next state begins with a share of the last one, a_k b_k, the linear regression of one on the other, and what
the network adds is multiplied by a filter f_k: 1 where the rest has energy, and the deviation of the rest, up to a
factor, where it has little. Both are the same for all modes of a shell of wavenumbers, and are estimated from training
states.

This is the linear inverse model of Penland and Sardeshmukh 1995 (J. Climate 8:1999), one for each shell, with a network
in place of its noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from afresh.core import Part

ROUNDING = 1e-10  # of the energy, which any shell may have: that of float32 is smaller
LEAST = 0.1  # amplitude, in means over all modes, below which what is added to a mode is filtered


def shells(grid: tuple[int, ...]) -> Tensor:
    """The shell of each mode of `torch.fft.rfftn` over a grid, int64: the wavenumber in periods of the longest axis,
    where cells are as long in all directions, rounded."""
    axes = [torch.fft.fftfreq(n, dtype=torch.float64) for n in grid[:-1]]
    axes.append(torch.fft.rfftfreq(grid[-1], dtype=torch.float64))
    squares = [f.square().view(*[-1 if i == j else 1 for j in range(len(axes))]) for i, f in enumerate(axes)]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    return (total.sqrt() * max(grid)).round().long()


def _weights(grid: tuple[int, ...]) -> Tensor:
    """How many modes of the full transform each mode of `rfftn` stands for: itself and its complex conjugate."""
    columns = grid[-1] // 2 + 1
    twice = torch.full((columns,), 2.0, dtype=torch.float64)
    twice[0] = 1
    if grid[-1] % 2 == 0:
        twice[-1] = 1
    return twice.expand(*grid[:-1], columns)


def by_shell(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Sums over the shells of the full transform of values (..., *modes) of `rfftn`: (..., shells)."""
    flat, shell = (values * _weights(grid).to(values)).flatten(-len(grid)), shells(grid).flatten()
    return flat.new_zeros(*flat.shape[:-1], int(shell.max()) + 1).index_add(-1, shell, flat)


def energy_bounds(
    grid: tuple[int, ...], pairs: Iterable[tuple[Tensor, Tensor]]
) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Of the states before and after in blocks of pairs (n, C, *grid): the greatest energy of each channel and shell in
    one state, and by which factor the energy of each channel grows at most in a step, 1 at least."""
    over = tuple(range(-len(grid), 0))
    most, gain = [], []
    for before, after in pairs:
        most.append(by_shell(torch.fft.rfftn(after, dim=over).abs().square(), grid).amax(0))
        old, new = (x.square().flatten(2).sum(2).double() for x in (before, after))
        gain.append((new / old.clamp_min(1e-30)).amax(0).clamp(1, 1e30))
    shells_most = torch.stack(most).amax(0)
    shells_most = torch.maximum(shells_most, ROUNDING * shells_most.sum(-1, keepdim=True))
    return tuple(map(tuple, shells_most.tolist())), tuple(torch.stack(gain).amax(0).tolist())


def bounded(
    x: Tensor, before: Tensor, most: Sequence[Sequence[float]], gain: Sequence[float], grid: tuple[int, ...]
) -> Tensor:
    """The fields (B, C, *grid) that follow those before, without energy beyond the `most` of its channel and shell, of
    which all modes are made smaller by one factor, and without energy of a channel beyond `gain` times that before.
    Fields within these bounds come back as they are, bit for bit."""
    over = tuple(range(-len(grid), 0))
    modes = torch.fft.rfftn(x, dim=over)
    energy, limit = by_shell(modes.abs().square(), grid), x.new_tensor(most)
    kept = torch.minimum(energy, limit)
    old = before.square().flatten(2).sum(2) * math.prod(grid)
    whole = (x.new_tensor(gain) * old / kept.sum(-1).clamp_min(1e-30)).clamp_max(1)
    factor = ((kept / energy.clamp_min(1e-30)).where(energy > limit, 1) * whole[..., None]).sqrt()
    beyond = (factor < 1).flatten(1).any(1)
    if not bool(beyond.any()):
        return x
    modes = modes * factor[..., shells(grid).to(x.device)]
    return torch.where(beyond.view(-1, *[1] * (x.dim() - 1)), torch.fft.irfftn(modes, s=grid, dim=over), x)


def estimate(
    grid: tuple[int, ...], pairs: Iterable[tuple[Tensor, Tensor]]
) -> tuple[tuple[tuple[float, float], ...], ...]:
    """For each channel and shell, of the states before and after in blocks of pairs (n, C, *grid): the share of a mode
    that persists, and the standard deviation of the rest in a single value, if all modes had it.

    The share is within [0, 1]: a mode that would grow by itself is left to the network. The blocks need not be in
    memory at once.
    """
    over, size = tuple(range(-len(grid), 0)), math.prod(grid)
    modes = by_shell(torch.ones(_weights(grid).shape, dtype=torch.float64), grid)
    inner = outer = total = torch.zeros(1, len(modes), dtype=torch.float64)
    states = 0
    for before, after in pairs:
        states += len(before)
        old, new = torch.fft.rfftn(before.double(), dim=over), torch.fft.rfftn(after.double(), dim=over)
        inner = inner + by_shell(old.abs().square().sum(0), grid)
        outer = outer + by_shell((old.conj() * new).real.sum(0), grid)
        total = total + by_shell(new.abs().square().sum(0), grid)
    share = (outer / inner.clamp_min(1e-300)).clamp(0, 1)
    rest = (total - 2 * share * outer + share.square() * inner).clamp_min(0)
    deviation = (rest / (states * modes * size)).sqrt()
    return tuple(tuple(zip(s, d, strict=True)) for s, d in zip(share.tolist(), deviation.tolist(), strict=True))


class Persistence(nn.Module):
    """(before (B, C, *grid), change (B, C, *grid) of unit scale) -> the next state, for a part with a spectrum."""

    def __init__(self, part: Part, grid: tuple[int, ...]) -> None:
        super().__init__()
        found = torch.tensor(part.spectrum, dtype=torch.float64)  # (C, shells, 2)
        shell = shells(grid)
        share, deviation = found.unbind(-1)
        passed = (deviation / (LEAST * part.std)).clamp_max(1)
        # Shares that are estimated shell by shell are no smooth function of the wavenumber, so that what they leave to
        # the network would depend on values far away; where it may add what it likes, all of a mode persists.
        share = 1 - (1 - passed) * (1 - share)
        self.register_buffer("share", share[:, shell].float(), persistent=False)
        self.register_buffer("filter", part.std * passed[:, shell].float(), persistent=False)
        self.grid, self.over = grid, tuple(range(-len(grid), 0))

    def forward(self, before: Tensor, change: Tensor) -> Tensor:
        old, new = (torch.fft.rfftn(v.float(), dim=self.over) for v in (before, change))
        modes = self.get_buffer("share") * old + self.get_buffer("filter") * new
        out: Tensor = torch.fft.irfftn(modes, s=self.grid, dim=self.over)
        return out
