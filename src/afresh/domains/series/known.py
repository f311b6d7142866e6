"""What a model is told of a window: the values that are known, which these are, what stands for the others, and how far
they may be from it.

A window is normalised by the mean and deviation of its own known values (Kim et al. 2022, reversible instance
normalisation), so that a model learns how a series goes on and not at which level it was. Values that are not known
have in their place the mean of those known one, two, ... seasons before; the network draws how they differ from it, in
units of the deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core.rng import Rng

LEAST = 0.05  # of the deviation of a window, in those of the whole series, so that a constant window is not blown up
SEASONS = 7  # that are averaged


@dataclass(frozen=True)
class Layout:
    """Sizes of a window: columns C, further channels E (known in advance, and of the calendar), and its steps."""

    channels: int
    extra: int
    context: int
    horizon: int
    period: int

    @property
    def length(self) -> int:
        return self.context + self.horizon

    @property
    def rows(self) -> int:
        """Channels of the part, as many of each column: known values, which are known, the mean season and the last
        one, and at its end what stands for x and its scale."""
        return 6 * self.channels

    def known(self, part: Tensor) -> Tensor:
        """Which values are known, (B, C, L) bool."""
        return part[:, self.channels : 2 * self.channels] > 0

    def drawn(self, part: Tensor) -> Tensor:
        """Which values are drawn, (B, C, L) bool; those that are neither known nor drawn are missing."""
        return part[:, -self.channels :] > 0


def part_of(x: Tensor, known: Tensor, drawn: Tensor, period: int) -> Tensor:
    """What a model is told, (B, rows, L), of x (B, C, L) of which values are `known` and others are `drawn`, both (B,
    C, L) bool. Values of x that are not known are not looked at."""
    there = known.to(x.dtype)
    value = torch.where(known, x, 0.0)
    count = there.sum(-1, keepdim=True).clamp_min(1)
    mean = value.sum(-1, keepdim=True) / count
    std = (((value - mean) * there).square().sum(-1, keepdim=True) / count).sqrt().clamp_min(LEAST)
    z = (value - mean) / std * there
    season, last = seasonal(z, known, period)
    base = torch.where(known, x, mean + std * season)
    scale = torch.where(drawn & ~known, std.expand_as(x), 0.0)
    hidden = 1 - there
    return torch.cat([z, there, season * hidden, last * hidden, base, scale], 1)


def seasonal(z: Tensor, known: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """For each step the mean of the last SEASONS known values at a whole number of periods before it, and the last of
    them, both like z (B, C, L). Where there is none before, that after it counts; where there is none at all, the mean
    of the window, 0."""
    b, c, length = z.shape
    rows = -(-length // period)
    pad = rows * period - length
    grid = torch.nn.functional.pad(z, (0, pad)).view(b, c, rows, period)
    there = torch.nn.functional.pad(known, (0, pad)).view(b, c, rows, period)
    number = there.to(torch.int64).cumsum(2)  # known seasons so far
    total = number[:, :, -1:]
    sums = torch.nn.functional.pad((grid * there.to(z.dtype)).cumsum(2), (0, 0, 1, 0))
    order = (torch.arange(1, rows + 1, device=z.device).view(1, 1, -1, 1) * there).cummax(2).values  # last known row
    first = torch.where(there, torch.arange(1, rows + 1, device=z.device).view(1, 1, -1, 1), rows + 1).amin(2, True)
    place = torch.where(order > 0, order, torch.where(first > rows, torch.zeros_like(first), first)).clamp_min(1) - 1
    last = grid.gather(2, place) * (total > 0).to(z.dtype)
    # The mean over the last SEASONS known rows: sums up to the last known row, less those before that window.
    before = (place + 1 - SEASONS).clamp_min(0)
    counts = torch.nn.functional.pad(number, (0, 0, 1, 0))
    many = counts.gather(2, place + 1) - counts.gather(2, before)
    mean = (sums.gather(2, place + 1) - sums.gather(2, before)) / many.clamp_min(1).to(z.dtype)
    return tuple(v.reshape(b, c, -1)[..., :length] for v in (mean, last))  # type: ignore[return-value]


# --------------------------------------------------------------------------- what is hidden in training

FORECAST, SCENARIO = 0.75, 0.1  # of windows: the whole future is hidden; that of some columns; the others have holes


def hidden(layout: Layout, rng: Rng, index: Tensor) -> Tensor:
    """Which values are hidden in training, (B, C, L) bool, by the number of each draw (B,).

    Most often the whole future, as in a forecast; sometimes that of some columns, as in a scenario (all of a single
    column); otherwise a stretch of each column in a place of its own, as where values are missing.
    """
    b, c, length = len(index), layout.channels, layout.length
    steps = torch.arange(length)
    future = (steps >= layout.context).view(1, 1, -1).expand(b, c, -1)
    kind = rng.uniform("series/hidden/kind", index)
    chosen = rng.uniform("series/hidden/columns", index, (c,)) < 0.5
    chosen[torch.arange(b), (rng.uniform("series/hidden/one", index) * c).long().clamp_max(c - 1)] = True
    size = (rng.uniform("series/hidden/size", index, (c,)) * layout.horizon).long() + 1
    begin = (rng.uniform("series/hidden/place", index, (c,)) * length).long()
    hole = (steps >= begin[..., None]) & (steps < (begin + size)[..., None])
    forecast, scenario = kind < FORECAST, (kind >= FORECAST) & (kind < FORECAST + SCENARIO)
    return torch.where(
        forecast.view(-1, 1, 1), future, torch.where(scenario.view(-1, 1, 1), future & chosen[..., None], hole)
    )
