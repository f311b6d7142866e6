"""How far training has come, with a true estimate of the time left."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Any

from afresh.core import events

WARM = 3  # first steps left out: they compile, allocate and fill caches
WINDOW = 60.0  # seconds of steps that the rate is taken over ...
LEAST, MOST = 32, 4096  # ... but never fewer or more steps than these
STRAY = 10.0  # a step this many medians long (a suspended laptop, a late compilation) says nothing of the next
EVERY = 0.25  # seconds between events


@dataclass
class Recurring:
    """What is known of one kind of interruption: an evaluation, a preview, a save."""

    since: int  # step at which counting began
    at: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def cost(self) -> float:
        """Seconds of one; the first, which may warm up, counts only while it is the only one."""
        return median(self.seconds[1:][-5:] or self.seconds)

    def left(self, step: int, total: int) -> int:
        """How many are still to come. The last step has one of each kind, whatever the period."""
        gaps = [b - a for a, b in zip(self.at, self.at[1:], strict=False) if b > a] or [self.at[0] - self.since]
        period = max(1, round(median(gaps[-5:])))
        latest = min(step, max(self.at[-1], step - period))  # after a roll-back, `at` is ahead of the step
        return math.ceil((total - latest) / period)


class TimeLeft:
    """Seconds until done, from the times at which steps and interruptions ended. Reads no clock.

    A step's time is the mean over a recent window without strays, and not the median: a step that is slow
    every sixteenth time is part of the rate. Interruptions are added by their kind, from their cost and
    period as seen so far; one that has not happened yet is not foreseen.
    """

    def __init__(self, total: int, start: int = 0, now: float = 0.0) -> None:
        self.total, self.step = total, start
        self.last = now  # when the last step or interruption ended
        self.seen = 0
        self.first: list[float] = []  # times of the first WARM steps
        self.recent: deque[float] = deque(maxlen=MOST)
        self.sum = 0.0
        self.kinds: dict[str, Recurring] = {}
        self.start = start

    def stepped(self, now: float, at: int | None = None) -> None:
        """A step ended at `now`; `at` is its number, the next one if None (it may go back after a roll-back)."""
        took, self.last = max(0.0, now - self.last), now
        self.step = self.step + 1 if at is None else at
        self.seen += 1
        if self.seen <= WARM:
            self.first.append(took)
            return
        if len(self.recent) == MOST:
            self.sum -= self.recent.popleft()
        self.recent.append(took)
        self.sum += took
        while len(self.recent) > LEAST and self.sum > WINDOW:
            self.sum -= self.recent.popleft()

    def interrupted(self, kind: str, seconds: float, now: float) -> None:
        """An interruption that took `seconds` ended at `now`; its time belongs to no step."""
        self.last = min(now, self.last + seconds)
        found = self.kinds.setdefault(kind, Recurring(self.start))
        found.at.append(self.step)
        found.seconds.append(seconds)

    def step_seconds(self) -> float | None:
        """Time of one step; None before two steps, as the first says little."""
        times = self.recent or self.first[1:]
        if not times:
            return None
        if times is not self.recent:
            return min(times)
        limit = STRAY * median(times)
        kept = [t for t in times if t <= limit]
        return sum(kept) / len(kept)

    def seconds(self, now: float) -> float | None:
        """Seconds left at `now`, at least 0; None while nothing is known."""
        each = self.step_seconds()
        if each is None:
            if self.step < self.total:
                return None
            each = 0.0
        costs = [(k.left(self.step, self.total), k.cost()) for k in self.kinds.values()]
        ahead = (self.total - self.step) * each + sum(n * c for n, c in costs)
        # Between events the time runs down, but not below what is left after the longest of them.
        return max(0.0, ahead - min(max(0.0, now - self.last), each + max((c for _, c in costs), default=0.0)))


class Smooth:
    """Exponential mean with the bias of its start removed (Kingma and Ba 2015, section 3)."""

    def __init__(self, steps: float) -> None:
        self.keep, self.value, self.weight = 1 - 1 / max(1.0, steps), 0.0, 0.0

    def add(self, x: float) -> None:
        """Non-finite values are left out: they would stay for ever."""
        if math.isfinite(x):
            self.value = self.keep * self.value + (1 - self.keep) * x
            self.weight = self.keep * self.weight + 1 - self.keep

    def mean(self) -> float | None:
        return self.value / self.weight if self.weight else None


def clock(seconds: float | None) -> str:
    """1:02 or 3:04:05; a time not known yet is ?:??."""
    if seconds is None:
        return "?:??"
    s = round(seconds)
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


def speed(rate: float | None, unit: str) -> str:
    """12,300 tokens/s, with three figures."""
    if rate is None:
        return f"? {unit}/s"
    if rate >= 100:
        return f"{round(rate, 2 - math.floor(math.log10(rate))):,.0f} {unit}/s"
    return f"{rate:.3g} {unit}/s"


def telling(metrics: Mapping[str, float]) -> list[str]:
    """The two names that are shown beside the loss: a reward first, then by their order; no squares of others."""
    squares = {f"{k}2" for k in metrics}
    names = [k for k in metrics if k != "loss" and not k.endswith("gradient_norm") and k not in squares]
    return sorted(names, key=lambda k: k.rpartition("/")[2] != "reward")[:2]


class ProgressMeter:
    """A context manager around training that reports its progress as events.

    `examples_per_step` are counted in `unit` (tokens, images); `start` is the step that a resumed run begins from. An
    event of the kind `progress` and the code `training` is raised at most every EVERY seconds, and at the end. Its
    fields: title, step, steps, loss, metrics, unit, rate (units a second), seconds_left and seconds_elapsed, with None
    for what is not known yet.
    """

    def __init__(
        self,
        total_steps: int,
        unit: str,
        examples_per_step: float,
        title: str,
        start: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.unit, self.each, self.title, self.now = total_steps, unit, examples_per_step, title, now
        self.begun = self.reported = now()
        self.left = TimeLeft(total_steps, start, self.begun)
        self.memory = min(50.0, max(1.0, total_steps / 20))
        self.loss = Smooth(self.memory)
        self.shown: dict[str, Smooth] = {}

    def __enter__(self) -> ProgressMeter:
        self.begun = self.left.last = self.now()
        self.report()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.report(ended=True)

    def step(self, metrics: Mapping[str, float], at: int | None = None) -> None:
        """A step is done. `at` is its number, the next one if None. The first loss among `metrics` and up to two others
        are reported, smoothed."""
        now = self.now()
        self.left.stepped(now, at)
        self.loss.add(next(v for k, v in metrics.items() if k.endswith("loss")))
        for name in telling(metrics):
            self.shown.setdefault(name, Smooth(self.memory)).add(metrics[name])
        if now - self.reported >= EVERY:
            self.report()

    def replan(self, total: int) -> None:
        """The run will have `total` steps after all."""
        self.total = self.left.total = total

    def overhead(self, seconds: float, kind: str) -> None:
        """An evaluation, a preview or a save (`kind`) just took `seconds`."""
        self.left.interrupted(kind, seconds, self.now())

    def seconds_left(self) -> float | None:
        """Seconds left, interruptions included; None while nothing is known (before the second step)."""
        return self.left.seconds(self.now())

    def rate(self) -> float | None:
        """Units a second while learning, interruptions apart."""
        seconds = self.left.step_seconds()
        return None if not seconds else self.each / seconds

    def values(self) -> dict[str, float]:
        """The smoothed loss and what is shown beside it, by name; what is not known yet is left out."""
        means = {"loss": self.loss.mean(), **{name: smooth.mean() for name, smooth in self.shown.items()}}
        return {name.rsplit("/", 1)[-1].replace("_", " "): v for name, v in means.items() if v is not None}

    def report(self, ended: bool = False) -> None:
        """Raise the event."""
        self.reported = self.now()
        fields = {
            "title": self.title,
            "step": self.left.step,
            "steps": self.total,
            "values": self.values(),
            "unit": self.unit,
            "rate": self.rate(),
            "seconds_left": self.seconds_left(),
            "seconds_elapsed": self.reported - self.begun,
            "ended": ended,
        }
        events.progress(progress_line(fields), "training", **fields)


def progress_line(fields: Mapping[str, Any]) -> str:
    """The fields of a progress event as one line of text."""
    step, steps = fields["step"], fields["steps"]
    left = "" if step >= steps else f"{clock(fields['seconds_left'])} left, "
    return (
        f"{fields['title']}: step {step:,}/{steps:,} ({100 * step // max(1, steps)}%), {values_line(fields)}, "
        f"{speed(fields['rate'], fields['unit'])}, {left}{clock(fields['seconds_elapsed'])} elapsed"
    )


def values_line(fields: Mapping[str, Any]) -> str:
    """The loss and what is shown beside it, as text."""
    values = {"loss": None, **fields["values"]}
    return ", ".join(
        f"{name} {'?' if value is None else format(value, '.4g' if name == 'loss' else '.3g')}"
        for name, value in values.items()
    )
