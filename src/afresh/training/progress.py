"""What a person sees while training: a bar on standard error, with a time left that tells the truth."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Literal, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as RichBar
from rich.table import Column
from rich.text import Text

WARM = 3  # first steps left out: they compile, allocate and fill caches
WINDOW = 60.0  # seconds of steps that the rate is taken over ...
LEAST, MOST = 32, 4096  # ... but never fewer or more steps than these
STRAY = 10.0  # a step this many medians long (a suspended laptop, a late compilation) says nothing of the next
PLAIN_EVERY = 10.0  # seconds between lines where standard error is not a terminal


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


class _Field(ProgressColumn):
    """A column of the bar computed at each refresh, so that the clock runs on during a long step."""

    def __init__(self, text: Callable[[], str], style: str = "", width: int | None = None) -> None:
        self.text, self.style = text, style
        super().__init__(Column(no_wrap=True, min_width=width, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        return Text(self.text(), style=self.style)


class Progress:
    """A context manager around training. Everything goes to standard error.

    `mode`: "auto" draws a bar on a terminal and prints a line every ten seconds elsewhere, "plain" always
    prints lines, "quiet" prints nothing. `examples_per_step` counts in `unit` (tokens, pictures). `start` is
    the step that a resumed run begins from. Raises ValueError on another mode.
    """

    def __init__(
        self,
        total_steps: int,
        unit: str,
        examples_per_step: float,
        title: str,
        mode: Literal["auto", "plain", "quiet"] | str = "auto",
        start: int = 0,
        now: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        if mode not in ("auto", "plain", "quiet"):
            raise ValueError(f"mode must be auto, plain or quiet, not {mode!r}")
        self.total, self.unit, self.each, self.title, self.now = total_steps, unit, examples_per_step, title, now
        self.stream = sys.stderr if stream is None else stream
        self.mode = "bar" if mode == "auto" and Console(file=self.stream).is_terminal else mode
        self.begun = self.printed = now()
        self.left = TimeLeft(total_steps, start, self.begun)
        self.told = start  # step of the last line
        self.memory = min(50.0, max(1.0, total_steps / 20))
        self.loss = Smooth(self.memory)
        self.shown: dict[str, Smooth] = {}
        self.bar: RichBar | None = None

    def __enter__(self) -> Progress:
        self.begun = self.printed = self.left.last = self.now()
        if self.mode == "bar":
            self.bar = self._make_bar()
            self.task = self.bar.add_task(escape(self.title), total=self.total, completed=self.left.step)
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()
        elif self.left.step != self.told:
            self._line()

    def step(self, loss: float, metrics: Mapping[str, float] | None = None, at: int | None = None) -> None:
        """A step is done. `at` is its number, the next one if None; up to two `metrics` are shown beside the loss."""
        now = self.now()
        self.left.stepped(now, at)
        self.loss.add(loss)
        names = telling(metrics or {})
        for k in names:
            self.shown.setdefault(k, Smooth(self.memory)).add((metrics or {})[k])
        if self.bar is not None:
            self.bar.update(self.task, completed=self.left.step)
        elif now - self.printed >= PLAIN_EVERY:
            self._line()

    def replan(self, total: int) -> None:
        """The run will have `total` steps after all."""
        self.total = self.left.total = total
        if self.bar is not None:
            self.bar.update(self.task, total=total)

    def overhead(self, seconds: float, kind: str) -> None:
        """An evaluation, a preview or a save (`kind`) just took `seconds`."""
        self.left.interrupted(kind, seconds, self.now())

    def message(self, text: str) -> None:
        """One line that stays, above the bar."""
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            self._say(text)

    def eta(self) -> float | None:
        """Seconds left, interruptions included; None while nothing is known (before the second step)."""
        return self.left.seconds(self.now())

    def rate(self) -> float | None:
        """Examples a second while learning, interruptions apart."""
        seconds = self.left.step_seconds()
        return None if not seconds else self.each / seconds

    def _values(self) -> str:
        loss = self.loss.mean()
        parts = ["loss ?" if loss is None else f"loss {loss:.4g}"]
        for name, smooth in self.shown.items():
            value = smooth.mean()
            if value is not None:
                parts.append(f"{name.rsplit('/', 1)[-1].replace('_', ' ')} {value:.3g}")
        return ", ".join(parts)

    def _make_bar(self) -> RichBar:
        return RichBar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            _Field(lambda: f"{self.left.step:,}/{self.total:,}"),
            _Field(self._values, "cyan"),
            _Field(lambda: speed(self.rate(), self.unit), "green"),
            _Field(lambda: f"{clock(self.eta())} left", "bold"),
            _Field(lambda: clock(self.now() - self.begun), "dim"),
            console=Console(file=self.stream),
            refresh_per_second=4,
            expand=True,
            redirect_stdout=False,  # standard output is the caller's, byte for byte
        )

    def _line(self) -> None:
        self.printed, self.told = self.now(), self.left.step
        done = 100 * self.left.step // max(1, self.total)
        left = "" if self.left.step >= self.total else f"{clock(self.eta())} left, "
        self._say(
            f"{self.title}: step {self.left.step:,}/{self.total:,} ({done}%), {self._values()}, "
            f"{speed(self.rate(), self.unit)}, {left}{clock(self.now() - self.begun)} elapsed"
        )

    def _say(self, text: str) -> None:
        if self.mode != "quiet":
            print(text, file=self.stream, flush=True)
