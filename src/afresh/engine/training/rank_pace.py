"""How fast each of several processes computes, and which is clearly slower than the others.

Processes that train together take every step together, so that all wait for the slowest, and the seconds of a step are
the same for all. What differs is what a process computes itself: a step without its exchange (training/ranks.py). These
seconds are exchanged when metrics are logged.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from afresh.core import events
from afresh.engine.training import ranks

SLOWER = 1.25  # times the median of the others: these wait for a fifth of each step
CHANCE = 8  # a process that is not slower is named with a probability of 2^-CHANCE at most


@dataclass(frozen=True)
class RankPace:
    """What a process computes: `seconds` of its own in a step, and `share`, its part of the batch. `slow`: whether it
    has been clearly slower than the others lately."""

    rank: int
    host: str
    seconds: float
    share: float
    slow: bool = False


@dataclass
class SlowRanks:
    """Which process is slower than the others.

    A process is slow if it took SLOWER times the median of the others in each of the last CHANCE + log2(processes)
    measurements. Of processes that are alike, each is above the median of the others with probability 1/2, so that all
    of them together are named by chance in one of 2^CHANCE such series at most, even if their times scatter widely.
    """

    streaks: dict[int, int] = field(default_factory=dict)  # process -> measurements in a row in which it was slower
    named: set[int] = field(default_factory=set)

    def needed(self, processes: int) -> int:
        """The measurements in a row after which a process is slow."""
        return CHANCE + math.ceil(math.log2(processes))

    def add(self, seconds: Sequence[float]) -> set[int]:
        """Take the seconds of each process in one measurement. Returns the processes that are slow now."""
        for number, own in enumerate(seconds):
            slower = own > SLOWER * self.usual(seconds, number)
            self.streaks[number] = self.streaks.get(number, 0) + 1 if slower else 0
        return {number for number, streak in self.streaks.items() if streak >= self.needed(len(seconds))}

    def usual(self, seconds: Sequence[float], number: int) -> float:
        """The median of the others."""
        return median([s for other, s in enumerate(seconds) if other != number])

    def warn(self, paces: Sequence[RankPace]) -> None:
        """Name each slow process once, with its host."""
        seconds = [p.seconds for p in paces]
        for pace in paces:
            if not pace.slow or pace.rank in self.named:
                continue
            self.named.add(pace.rank)
            usual = self.usual(seconds, pace.rank)
            events.warning(
                f"Process {pace.rank} on {pace.host} is slow: it computes {pace.seconds:.3g} s for each step, the "
                f"others {usual:.3g} s, and wait for it. Does another program run there, is its processor or GPU too "
                "hot, or is its disk slow?",
                "slow_rank",
                rank=pace.rank,
                host=pace.host,
                seconds=pace.seconds,
                others=usual,
            )


@dataclass
class Paces:
    """The seconds that this process has computed since it last told them, and those of all processes."""

    own: float = 0.0
    steps: int = 0
    hosts: list[str] = field(default_factory=list)
    slow: SlowRanks = field(default_factory=SlowRanks)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure a step, without the exchange in it."""
        begun, exchanged = time.perf_counter(), ranks.exchanged.seconds
        yield
        self.own += time.perf_counter() - begun - (ranks.exchanged.seconds - exchanged)
        self.steps += 1

    def exchange(self, batch: int) -> list[RankPace]:
        """What each process computes, in the order of their ranks; every process must call this. The process that leads
        names those that are slow. Empty without other processes."""
        if ranks.world() == 1 or self.steps == 0:
            return []
        self.hosts = self.hosts or ranks.from_all(socket.gethostname())
        seconds = ranks.numbers_of_all(self.own / self.steps)
        self.own, self.steps = 0.0, 0
        paces = paces_of(seconds, self.hosts, batch, self.slow.add(seconds))
        if ranks.leads():
            self.slow.warn(paces)
        return paces


def paces_of(seconds: Sequence[float], hosts: Sequence[str], batch: int, slow: set[int]) -> list[RankPace]:
    shares = [(end - first) / batch for first, end in pairwise(ranks.ends(batch, len(seconds)))]
    return [RankPace(r, hosts[r], seconds[r], share, r in slow) for r, share in enumerate(shares)]
