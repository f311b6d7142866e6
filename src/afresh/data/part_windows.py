"""Training windows of a stream in parts, as a pure function of (seed, draw).

In the first epoch the parts are met in groups, each half as large as the ones before together, so that training begins
when the first few parts are made, and others need not be made faster than 1.5 times as they are used up. Windows are
drawn without replacement from a group until it is used up. Which window a draw is depends on the number of tokens of
the parts up to its group alone. Later epochs draw from all parts. No list of windows is kept but a number for each
part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import Batch, Examples, Space
from afresh.core.rng import Rng
from afresh.data.permutation import Order

FIRST = 2  # parts of the first group
AHEAD = 1  # parts that are made before it is their turn


@dataclass(frozen=True)
class _Group:
    """Parts first ... first + len(windows) - 1, whose windows are drawn from draw `begin` of the epoch on."""

    first: int
    begin: int
    windows: Tensor  # of each part, added up to and with it, (P,)

    @property
    def end(self) -> int:
        return self.begin + int(self.windows[-1])

    @property
    def after(self) -> int:
        """The part after the last one."""
        return self.first + len(self.windows)


class PartWindows:
    """Windows of `space` of a stream in parts, which tile each part as those of a stream in memory tile a run."""

    def __init__(self, examples: Examples, space: Space, rng: Rng) -> None:
        assert examples.parts is not None
        self.parts, self.cond = examples.parts, examples.cond.select(torch.zeros(1, dtype=torch.int64))
        self.space, self.rng, self.context = space, rng, space.shape[0]
        self.groups: list[_Group] = []
        self.order: tuple[tuple[int, int], Order] | None = None  # of the epoch and the group that were drawn from last

    @property
    def count(self) -> int:
        """The windows of an epoch; an estimate as long as not all parts are made."""
        if self.complete:
            return self.groups[-1].end
        return max(1, -(-self.parts.total // self.context))

    @property
    def complete(self) -> bool:
        return bool(self.groups) and self.groups[-1].after == len(self.parts)

    def batch(self, draws: Tensor) -> Batch:
        """The windows of draws (B,), which are consecutive. Waits for the parts that it needs, and begins to make those
        that are needed soon."""
        self._reach(int(draws[-1]))
        part, nth, shift = (torch.empty_like(draws) for _ in range(3))
        epochs = draws.div(self.groups[-1].end, rounding_mode="floor") if self.complete else torch.zeros_like(draws)
        for epoch in torch.unique(epochs).tolist():
            here = epochs == epoch
            part[here], nth[here] = self._drawn(epoch, draws[here] - epoch * self.groups[-1].end)
            shift[here] = self._shift(epoch, part[here])
        lengths = torch.tensor([self.parts.tokens(p) for p in part.tolist()])
        start = torch.minimum((nth * self.context + shift).clamp_min(0), lengths - self.context).clamp_min(0)
        position = start[:, None] - 1 + torch.arange(self.context + 1)  # (B, T + 1)
        inside = (position >= 0) & (position < lengths[:, None])
        x = torch.where(inside, self.parts.read(part, position), self.space.special["end"])
        whole = bool(inside[:, 1:].all())
        return Batch(x, self.cond.repeat(len(draws)), draws, None if whole else inside[:, 1:])

    def _reach(self, draw: int) -> None:
        """Know the groups up to the one of a draw of the first epoch, and all of them for later epochs."""
        while not self.complete and (not self.groups or draw >= self.groups[-1].end):
            before = self.groups[-1] if self.groups else None
            first, begin = (0, 0) if before is None else (before.after, before.end)
            size = self._size(first)
            self.parts.ask(first + size)
            tokens = torch.tensor([self.parts.tokens(p) for p in range(first, first + size)])
            windows = (tokens + self.context - 1).div(self.context, rounding_mode="floor")
            self.groups.append(_Group(first, begin, windows.cumsum(0)))
        group = self.groups[-1]
        if not self.complete:  # the next group is made at the pace at which this one is used up
            share = (draw - group.begin) / (group.end - group.begin)
            self.parts.ask(group.after + AHEAD + int(share * self._size(group.after)))

    def _size(self, first: int) -> int:
        """The parts of the group that begins with part `first`: all that are left, if the group after it would be
        smaller."""
        size = max(FIRST, first // 2, self.parts.ready - first)
        return size if first + 2 * size <= len(self.parts) else len(self.parts) - first

    def _drawn(self, epoch: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """The parts (B,) of places (B,) of an epoch, and which window of their part they are."""
        if epoch:
            sizes = [g.windows.diff(prepend=torch.zeros(1, dtype=torch.int64)) for g in self.groups]
            return self._within(_Group(0, 0, torch.cat(sizes).cumsum(0)), epoch, 0, places)
        part, nth = torch.empty_like(places), torch.empty_like(places)
        for number, group in enumerate(self.groups):
            here = (places >= group.begin) & (places < group.end)
            if bool(here.any()):
                part[here], nth[here] = self._within(group, epoch, number, places[here] - group.begin)
        return part, nth

    def _within(self, group: _Group, epoch: int, number: int, places: Tensor) -> tuple[Tensor, Tensor]:
        if self.order is None or self.order[0] != (epoch, number):
            purpose = f"epoch/{epoch}" + (f"/{number}" if number else "")
            self.order = (epoch, number), Order(self.rng, purpose, group.end - group.begin)
        window = self.order[1].at(places)
        part = torch.searchsorted(group.windows, window, right=True)
        before = torch.where(part > 0, group.windows[(part - 1).clamp_min(0)], 0)
        return group.first + part, window - before

    def _shift(self, epoch: int, part: Tensor) -> Tensor:
        """By how many tokens the tiling of each part is shifted, (B,): not at all in the first epoch."""
        if epoch == 0:
            return torch.zeros_like(part)
        return (self.rng.uniform(f"offset/{epoch}", part) * self.context).long() - self.context // 2
