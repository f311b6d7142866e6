"""One of several processes that train a run together on a Ray cluster, as Ray Train starts it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from afresh.core import events
from afresh.core.errors import Interrupted
from afresh.core.events import Event
from afresh.core.plural import counted
from afresh.data.storage.lock import is_locked
from afresh.engine.training import ranks
from afresh.engine.training.signals import also_interrupted
from afresh.runs.lock import FILE
from afresh.verbs.processes import Order, account_of, check_attempts, event_line, newest_step
from afresh.verbs.rank import train

FREE = 60.0  # seconds in which a process whose machine was lost must have let go of the run


def process(config: dict[str, Any]) -> None:
    """Train beside the other processes, in each of them. Raises what Ray Train shall start them again for."""
    import ray

    mailbox, order = config["mailbox"], Order(**config["order"])
    if ray.get(mailbox.ended.remote()):  # started again because others ended after an error
        return
    with suppress(OSError):
        os.chdir(order.folder)
    leads = os.environ["RANK"] == "0"

    def listener(event: Event) -> None:
        if leads:
            mailbox.hear.remote(event_line(event))

    def begin() -> None:
        newest = newest_step(order)
        before = ray.get(mailbox.attempts.remote())
        check_attempts(order, before, newest)
        ray.get(mailbox.begin.remote(newest))
        if before:
            events.warning(
                f"A process or machine was lost. Training goes on from step {newest} with "
                f"{counted(ranks.world(), 'process', 'processes')}.",
                "begun_again",
            )
        wait_until_free(Path(order.run))

    def end(error: Exception | None) -> None:
        if isinstance(error, Interrupted) and not leads:
            return  # process 0 may still be saving
        ray.get(mailbox.end.remote(account_of(error)))

    with events.listening(listener), stop_watched(mailbox) as asked, also_interrupted(asked.is_set):
        if not train(order, begin, end):
            raise RuntimeError(f"training ended with an error on {socket.gethostname()}")


def wait_until_free(run: Path) -> None:
    """Wait for the process whose machine was lost to end, which may hold the run for a moment."""
    end = time.monotonic() + FREE
    while is_locked(run / FILE) and time.monotonic() < end:
        time.sleep(0.5)


@contextmanager
def stop_watched(mailbox: Any) -> Iterator[threading.Event]:
    """An event that is set when the parent wants training to stop."""
    import ray

    asked, over = threading.Event(), threading.Event()

    def watch() -> None:
        with suppress(ray.exceptions.RayError):
            while not over.wait(0.5) and not asked.is_set():
                if ray.get(mailbox.asked_to_stop.remote()):
                    asked.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()
