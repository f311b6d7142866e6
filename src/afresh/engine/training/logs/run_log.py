"""What training tells a log of another program, and how such a log is opened.

A log never ends a training: one that fails is left out from then on, with a warning.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from afresh.core import Sound, UserError, events

LOGS = ("tensorboard", "trackio", "wandb")  # a file of this folder each, named after the package that it needs


@dataclass(frozen=True)
class Training:
    """A training that is logged: its name, the folder of its run, its record as JSON, and the step at which it begins,
    which is not 0 if it is resumed."""

    name: str
    folder: Path
    record: Mapping[str, Any]
    step: int


class RunLog(Protocol):
    """A log that is open. Every method may raise whatever its library raises."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics of a step: losses, gradient norms, rewards."""
        ...

    def image(self, step: int, pixels: np.ndarray) -> None:
        """A picture (H, W, C) of uint8 of samples drawn at a step, C 1 or 3."""
        ...

    def sound(self, step: int, number: int, sound: Sound) -> None:
        """One of the samples drawn at a step."""
        ...

    def text(self, step: int, number: int, text: str) -> None:
        """One of the samples drawn at a step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def check_logs(names: Sequence[str]) -> None:
    """Raises UserError for a log that does not exist, or whose package is not installed."""
    for name in names:
        if name not in LOGS:
            raise UserError(f"No log {name!r}. Known: {', '.join(LOGS)}.", "no_log")
        if find_spec(name) is None:
            raise UserError(
                f"The log {name} needs the package {name}, which is not installed: pip install {name}, or all logs: "
                "pip install 'afresh[logging]'.",
                "no_package",
                package=name,
            )


class Logs:
    """Several logs, each as long as it works."""

    def __init__(self) -> None:
        self.open: dict[str, RunLog] = {}

    def each(self, tell: Callable[[RunLog], None]) -> None:
        """Call `tell` with every log."""
        for name, log in list(self.open.items()):
            with self.tried(name):
                tell(log)

    @contextmanager
    def tried(self, name: str) -> Iterator[None]:
        try:
            with redirect_stdout(sys.stderr):  # standard output is the caller's
                yield
        except Exception as error:
            self.open.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            events.warning(f"The log {name} failed and is left out; training goes on. {reason}", "log_failed", log=name)


@contextmanager
def opened(names: Sequence[str], training: Training) -> Iterator[Logs]:
    """The logs of these names for one training, which are closed at the end, also after an error."""
    logs = Logs()
    for name in dict.fromkeys(names):
        with logs.tried(name):
            logs.open[name] = import_module(f"afresh.engine.training.logs.{name}").start(training)
    try:
        yield logs
    finally:
        logs.each(lambda log: log.close())
