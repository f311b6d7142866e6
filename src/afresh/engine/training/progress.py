"""The progress of training, with an estimate of the remaining time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Any

from afresh.core import events
from afresh.engine.training.rank_pace import RankPace

WARM = 3  # first steps that are left out, because they compile, allocate memory and fill caches
WINDOW = 60.0  # seconds over which the speed is averaged ...
LEAST, MOST = 32, 4096  # ... with at least and at most these numbers of steps,
FEW, LONG = 8, 3  # ... or only FEW steps if these take LONG times the window
OUTLIER = 10.0  # medians from which a step is ignored, such as one during which the computer was suspended
EVERY = 0.25  # minimum seconds between events
MOST_RANKS = 8  # processes whose speed is listed one by one


@dataclass
class Recurring:
    """The past interruptions of one kind: evaluations, previews or saves."""

    since: int  # step at which counting began
    at: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def cost(self) -> float:
        """The expected seconds of one interruption.

        The first one, which may include a warm-up, is ignored if possible.
        """
        return median(self.seconds[1:][-5:] or self.seconds)

    def left(self, step: int, total: int) -> int:
        """The number of interruptions to come. The last step has one of each kind, whatever the period."""
        gaps = [b - a for a, b in zip(self.at, self.at[1:], strict=False) if b > a] or [self.at[0] - self.since]
        period = max(1, round(median(gaps[-5:])))
        latest = min(step, max(self.at[-1], step - period))  # after a roll-back, `at` is ahead of the step
        return math.ceil((total - latest) / period)


class TimeLeft:
    """An estimate of the seconds left from the times at which steps and interruptions ended. Does not read a clock.

    The duration of a step is the mean over a recent window without outliers. It is not the median, since steps that are
    regularly slow, such as every sixteenth one, must count. Interruptions are added for each kind, from their past cost
    and period; a kind that has not occurred yet is not included.
    """

    def __init__(self, total: int, start: int = 0, now: float = 0.0, window: float = WINDOW) -> None:
        self.total, self.step, self.window = total, start, window
        self.last = now  # when the last step or interruption ended
        self.seen = 0
        self.first: list[float] = []  # times of the first WARM steps
        self.recent: deque[float] = deque(maxlen=MOST)
        self.sum = 0.0
        self.kinds: dict[str, Recurring] = {}
        self.start = start

    def stepped(self, now: float, at: int | None = None) -> None:
        """Record that a step ended at `now`. `at` is its number, by default the next one; a roll-back may reduce it."""
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
        while (len(self.recent) > LEAST and self.sum > self.window) or (
            len(self.recent) > FEW and self.sum > LONG * self.window
        ):
            self.sum -= self.recent.popleft()

    def interrupted(self, kind: str, seconds: float, now: float) -> None:
        """Record that an interruption of `seconds` ended at `now`. Its time is not part of a step."""
        self.last = min(now, self.last + seconds)
        past = self.kinds.setdefault(kind, Recurring(self.start))
        past.at.append(self.step)
        past.seconds.append(seconds)

    def step_seconds(self) -> float | None:
        """The seconds of one step; None before the second step, since the first is not representative."""
        times = self.recent or self.first[1:]
        if not times:
            return None
        if times is not self.recent:
            return min(times)
        limit = OUTLIER * median(times)
        usual = [t for t in times if t <= limit]
        return sum(usual) / len(usual)

    def interruptions(self) -> float:
        """The expected seconds of the interruptions to come."""
        return sum(k.left(self.step, self.total) * k.cost() for k in self.kinds.values())

    def seconds(self, now: float) -> float | None:
        """Seconds left at `now`, at least 0; None before the second step."""
        each = self.step_seconds()
        if each is None:
            if self.step < self.total:
                return None
            each = 0.0
        ahead = (self.total - self.step) * each + self.interruptions()
        longest = max((k.cost() for k in self.kinds.values()), default=0.0)
        # Between events the time decreases with the clock, but by at most one step and the longest interruption.
        return max(0.0, ahead - min(max(0.0, now - self.last), each + longest))


class Smooth:
    """An exponential moving average with bias correction (Kingma and Ba 2015, section 3)."""

    def __init__(self, steps: float) -> None:
        self.keep, self.value, self.weight = 1 - 1 / max(1.0, steps), 0.0, 0.0

    def add(self, x: float) -> None:
        """Add a value. Values that are not finite are ignored, since they would never leave the average."""
        if math.isfinite(x):
            self.value = self.keep * self.value + (1 - self.keep) * x
            self.weight = self.keep * self.weight + 1 - self.keep

    def mean(self) -> float | None:
        return self.value / self.weight if self.weight else None


def clock(seconds: float | None) -> str:
    """Format seconds as 1:02 or 3:04:05, or as ?:?? if they are not known."""
    if seconds is None:
        return "?:??"
    s = round(seconds)
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


def speed(rate: float | None, unit: str) -> str:
    """Format a rate with three significant digits, such as 12,300 tokens/s."""
    if rate is None:
        return f"? {unit}/s"
    if rate >= 100:
        return f"{round(rate, 2 - math.floor(math.log10(rate))):,.0f} {unit}/s"
    return f"{rate:.3g} {unit}/s"


def shown_metrics(metrics: Mapping[str, float]) -> list[str]:
    """The names of up to two metrics to show beside the loss, a reward first.

    Gradient norms and squares are left out.
    """
    squares = {f"{k}2" for k in metrics}
    names = [k for k in metrics if k != "loss" and not k.endswith("gradient_norm") and k not in squares]
    return sorted(names, key=lambda k: k.rpartition("/")[2] != "reward")[:2]


class ProgressMeter:
    """A context manager around training that reports its progress as events.

    `examples_per_step` are counted in `unit` (tokens, images); `start` is the step from which a resumed run continues.
    The speed is averaged over `window` seconds, and `begun` is when the command began, of which the time elapsed is.
    An event of the kind `progress` with the code `training` is emitted at most every EVERY seconds, and at the end. Its
    fields are title, step, steps, values, unit, rate (units per second), seconds_left, seconds_elapsed, ended and
    ranks. Fields are None while they are not known. `ranks` holds what each of several processes computes: rank, host,
    seconds (of its own in a step), rate (units per second if it never waited for others) and slow.
    """

    def __init__(
        self,
        total_steps: int,
        unit: str,
        examples_per_step: float,
        title: str,
        start: int = 0,
        now: Callable[[], float] = time.monotonic,
        window: float = WINDOW,
        begun: float | None = None,
    ) -> None:
        self.total, self.unit, self.each, self.title, self.now = total_steps, unit, examples_per_step, title, now
        self.reported = now()
        self.begun = self.reported if begun is None else begun
        self.left = TimeLeft(total_steps, start, self.reported, window)
        self.memory = min(50.0, max(1.0, total_steps / 20))
        self.loss = Smooth(self.memory)
        self.shown: dict[str, Smooth] = {}
        self.ranks: list[dict[str, Any]] = []

    def __enter__(self) -> ProgressMeter:
        self.left.last = self.now()
        self.report()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.report(ended=True)

    def step(self, metrics: Mapping[str, float], at: int | None = None) -> None:
        """Record a finished step. `at` is its number, by default the next one.

        The first loss among `metrics` and up to two others are reported, smoothed.
        """
        now = self.now()
        self.left.stepped(now, at)
        self.loss.add(next(v for k, v in metrics.items() if k.endswith("loss")))
        for name in shown_metrics(metrics):
            self.shown.setdefault(name, Smooth(self.memory)).add(metrics[name])
        if now - self.reported >= EVERY:
            self.report()

    def replan(self, total: int) -> None:
        """Change the total number of steps."""
        self.total = self.left.total = total

    def overhead(self, seconds: float, kind: str) -> None:
        """Record that an evaluation, a preview or a save (`kind`) has just taken `seconds`."""
        self.left.interrupted(kind, seconds, self.now())

    def paces(self, paces: Sequence[RankPace]) -> None:
        """Record what each process computes."""
        self.ranks = [
            {
                "rank": p.rank,
                "host": p.host,
                "seconds": p.seconds,
                "rate": self.each * p.share / p.seconds if p.seconds > 0 else None,
                "slow": p.slow,
            }
            for p in paces
        ]

    def seconds_left(self) -> float | None:
        """Seconds left, including interruptions; None before the second step."""
        return self.left.seconds(self.now())

    def rate(self) -> float | None:
        """Units per second, without interruptions; None before the second step."""
        seconds = self.left.step_seconds()
        return None if not seconds else self.each / seconds

    def values(self) -> dict[str, float]:
        """The smoothed loss and up to two other metrics by name, as far as they are known."""
        means = {"loss": self.loss.mean(), **{name: smooth.mean() for name, smooth in self.shown.items()}}
        return {name.rsplit("/", 1)[-1].replace("_", " "): v for name, v in means.items() if v is not None}

    def report(self, ended: bool = False) -> None:
        """Emit a progress event."""
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
            "ranks": self.ranks,
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


def ranks_line(fields: Mapping[str, Any]) -> str:
    """What each process computes, of a progress event, as one line; of many, the slowest and the fastest. Empty for one
    process."""
    ranks = fields.get("ranks") or []
    if not ranks:
        return ""
    by_speed = sorted(ranks, key=lambda r: -r["seconds"])
    listed = ranks if len(ranks) <= MOST_RANKS else [by_speed[0], by_speed[-1]]
    each = [f"{r['rank']} on {r['host']} {speed(r['rate'], fields['unit'])}{' (slow)' * r['slow']}" for r in listed]
    which = "process" if len(ranks) <= MOST_RANKS else f"slowest and fastest of {len(ranks)} processes"
    return f"{which}, without waiting for others: {', '.join(each)}"


def values_line(fields: Mapping[str, Any]) -> str:
    """The loss and the other metrics of a progress event as text."""
    values = {"loss": None, **fields["values"]}
    return ", ".join(
        f"{name} {'?' if value is None else format(value, '.4g' if name == 'loss' else '.3g')}"
        for name, value in values.items()
    )
