"""How much of a measurement fits into a number of seconds, and how far it has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch.nn.modules.module import register_module_forward_pre_hook

from afresh.core import events
from afresh.engine.training.progress import clock

SAMPLING, ENCODER, CLASSIFIER = 0.35, 0.3, 0.1  # shares of the seconds for the samples and for training each network
LEAST_STEPS = 20  # which are trained even where they take longer than their share
GRACE = 10.0  # seconds by which a short measurement may end late; a longer one may take twice its seconds
EVERY = 0.25  # minimum seconds between events
LATE = "left out to keep the minutes; `afresh measure RUN` measures everything"


class OutOfTime(Exception):
    """Raised within `Effort.bounded` when its time is over."""


@dataclass
class Effort:
    """The seconds for a measurement, on the clock of time.monotonic, and its progress. Without `seconds`, everything is
    measured in full, and only the progress is reported.

    Progress is an event of the kind `progress` with the code `measuring`. Its fields are title, stage, share (of the
    stage, 0 to 1), seconds_left (None without a limit, and beyond it), seconds_elapsed and ended.
    """

    title: str = ""
    seconds: float | None = None
    begun: float = field(default_factory=time.monotonic)
    reported: float = 0.0
    stage: str = ""
    share: float = 0.0
    end: float | None = None  # when `report` raises OutOfTime

    def left(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self.seconds is None else max(0.0, self.begun + self.seconds - time.monotonic())

    @property
    def over(self) -> bool:
        return self.left() == 0.0

    def half(self) -> Effort:
        """The effort of a part that gets half of the seconds that are left."""
        left = self.left()
        return self if self.seconds is None or left is None else replace(self, seconds=self.seconds - left / 2)

    def affordable(self, wanted: int, least: int, share: float, work: Callable[[], object]) -> int:
        """How many of `wanted` repetitions of `work` fit into `share` of all seconds, at least `least`. Without a limit
        it is `wanted`, and nothing is tried. `work` is repeated and the second time counts, unless the first one took
        longer than half of the share."""
        if self.seconds is None or wanted <= least:
            return wanted
        start = time.perf_counter()
        work()
        if (each := time.perf_counter() - start) > share * self.seconds / 2:
            return max(least, min(wanted, int(share * self.seconds / each)))
        start = time.perf_counter()
        work()
        each = max(1e-9, time.perf_counter() - start)
        allowed = min(share * self.seconds, self.left() or 0.0)
        return max(least, min(wanted, int(allowed / each)))

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Report progress at every evaluation of a network by this thread, and end what runs within this block once it
        is late: the next evaluation or report raises OutOfTime. Without a limit, nothing is ended."""
        thread = threading.get_ident()
        if self.seconds is not None:
            self.end = self.begun + self.seconds + max(self.seconds, GRACE)

        def check(*_: object) -> None:
            if threading.get_ident() == thread:
                self.report(self.stage, self.share)

        handle = register_module_forward_pre_hook(check)
        try:
            yield
        finally:
            handle.remove()
            self.end = None

    def report(self, stage: str, share: float = 0.0, ended: bool = False) -> None:
        """Emit a progress event, at most every EVERY seconds. Raises OutOfTime as `bounded` says."""
        now = time.monotonic()
        if self.end is not None and now > self.end:
            raise OutOfTime(LATE)
        last = share >= 1 and share > self.share  # of a stage
        self.stage, self.share = stage, share
        if now - self.reported < EVERY and not last and not ended:
            return
        self.reported = now
        elapsed, left = now - self.begun, self.left()
        until = "" if left is None else f", at most {clock(left)} left"
        if left is not None and left < 0.5:  # what is begun is ended, however long that takes
            left, until = None, ", longer than planned"
        ended_in = f"{self.title}: measured in {clock(elapsed)}"
        text = ended_in if ended else f"{self.title}: measuring: {stage}{until}"
        fields = {"title": self.title, "stage": stage, "share": share, "ended": ended}
        events.progress(text, "measuring", **fields, seconds_left=left, seconds_elapsed=elapsed)
