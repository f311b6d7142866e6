"""The progress of what comes before the first step of training, such as learning a reward from votes."""

from __future__ import annotations

import time
from collections.abc import Callable

from afresh.core import events
from afresh.engine.training.progress import EVERY, clock

KNOWN = 0.02  # share of a stage from which the time that is left of it is told


class Preparation:
    """Reports stages as they begin, each as a note, and how far each has come.

    Progress is an event of the kind `progress` with the code `preparing`. Its fields are title, stage, share (of the
    stage, 0 to 1), seconds_left (of the stage; None while it is not known), seconds_elapsed (since `begun`, on the
    clock of `now`) and ended.
    """

    def __init__(self, title: str, begun: float, now: Callable[[], float] = time.monotonic) -> None:
        self.title, self.begun, self.now = title, begun, now
        self.stage, self.since, self.reported = "", now(), 0.0

    def begin(self, stage: str) -> None:
        """A stage begins, and the one before has ended."""
        self.end()
        self.stage, self.since = stage, self.now()
        events.note(f"{self.title}: {stage} ...", "preparing")
        self.report(0.0)

    def report(self, share: float) -> None:
        """The stage has come so far. Emits an event, at most every EVERY seconds."""
        now = self.now()
        if 0 < share < 1 and now - self.reported < EVERY:
            return
        self.reported = now
        self.emit(share, (now - self.since) * (1 - share) / share if share >= KNOWN else None, False)

    def end(self) -> None:
        """The last stage has ended."""
        if self.stage:
            self.emit(1.0, None, True)
            self.stage = ""

    def emit(self, share: float, left: float | None, ended: bool) -> None:
        elapsed = self.now() - self.begun
        until = "" if left is None else f", {clock(left)} left of this"
        come = "done" if ended else f"{share:.0%}{until}"
        events.progress(
            f"{self.title}: {self.stage}: {come}, {clock(elapsed)} elapsed",
            "preparing",
            title=self.title,
            stage=self.stage,
            share=share,
            seconds_left=left,
            seconds_elapsed=elapsed,
            ended=ended,
        )
