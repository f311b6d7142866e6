"""Contenders that live at once and take turns of a few steps, so that a machine that becomes slower or faster does so
for all of them.

A contender waits in `Turns.begin` for FOLDER/goN, which `Side.turn` writes, and tells in FOLDER/tookN.json what the
turn N took. Needs the standard library alone, since a peer may have an environment of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.folders import write_json

PAUSE = 0.002  # seconds between looks at a file


def wait_until(ready: Callable[[], bool]) -> None:
    while not ready():
        time.sleep(PAUSE)


@dataclass(frozen=True)
class Side:
    """One of those that take turns."""

    folder: Path
    running: Future[Any]

    def turn(self, number: int) -> Mapping[str, Any]:
        """Lets it take its turn and returns what that took. Raises what ended the contender if it ended before."""
        (self.folder / f"go{number}").touch()
        file = self.folder / f"took{number}.json"
        wait_until(lambda: file.exists() or self.running.done())
        if not file.exists():
            self.running.result()
        took: dict[str, Any] = json.loads(file.read_text())
        return took


class Turns:
    """Of a contender: what a step takes, on the clock and of the processor, in each turn of so many steps."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.began = (0.0, 0.0)
        self.seconds: list[tuple[float, float]] = []

    def begin(self, step: int) -> None:
        """Before each step, which are counted from 0."""
        if step % self.steps == 0:
            wait_until((self.folder / f"go{step // self.steps}").exists)
        self.began = (time.perf_counter(), time.process_time())

    def end(self, step: int) -> None:
        """After each step."""
        now = (time.perf_counter(), time.process_time())
        self.seconds.append((now[0] - self.began[0], now[1] - self.began[1]))
        if (step + 1) % self.steps == 0:
            clock, processor = (sum(kind) / self.steps for kind in zip(*self.seconds, strict=True))
            self.seconds = []
            write_json(self.folder / f"took{step // self.steps}.json", {"seconds": clock, "processor": processor})
