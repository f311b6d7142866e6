"""Handling of Ctrl-C and SIGTERM during training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_asked: ContextVar[Callable[[], bool]] = ContextVar("asked", default=lambda: False)


@contextmanager
def also_interrupted(asked: Callable[[], bool]) -> Iterator[None]:
    """Within the block, in this context, a stop is requested also by `asked`: the signals of a process that trains for
    another one are not those of the command."""
    before = _asked.get()
    token = _asked.set(lambda: asked() or before())
    try:
        yield
    finally:
        _asked.reset(token)


@contextmanager
def interrupts_caught() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a stop was requested by Ctrl-C or SIGTERM.

    The first signal requests a stop after the current step, and a second Ctrl-C raises KeyboardInterrupt immediately.
    A second SIGTERM does not: Slurm sends it to every process of a job, among them torchrun, which sends it to its own
    processes again. Signals are handled in the main thread only; in other threads only `also_interrupted` counts.
    """
    requested, asked = False, _asked.get()

    def handler(number: int, frame: Any) -> None:
        nonlocal requested
        if requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested = True

    on_main_thread = threading.current_thread() is threading.main_thread()
    previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)} if on_main_thread else {}
    try:
        yield lambda: requested or asked()
    finally:
        for s, old in previous.items():
            signal.signal(s, old)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM within the block, so that incomplete files are removed."""

    def handler(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
