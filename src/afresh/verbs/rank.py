"""One of several processes that train a run together, as torchrun starts it: `python -m afresh.verbs.rank`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from afresh.core import UserError, events
from afresh.core.errors import Diverged, Interrupted
from afresh.engine.training import ranks
from afresh.engine.training.ranks import DIFFER, NOT_MET
from afresh.verbs.processes import VARIABLE, Order, attempt, ended, event_line, order_of, parent_ended
from afresh.verbs.resume import resume
from afresh.verbs.torchrun import same
from afresh.verbs.training_job import learn


def main() -> None:
    """Train, and say how it ended. The exit code is 0 also after an error that another attempt would meet again."""
    order = order_of(os.environ[VARIABLE])
    if order.ended.exists() or parent_ended(0):  # started again because others ended
        return
    threading.Thread(target=end_with_parent, daemon=True).start()
    (Path(order.folder) / f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    leads = os.environ["RANK"] == "0"
    stream = os.open(order.events, os.O_WRONLY) if leads else None

    def listener(event: events.Event) -> None:
        if stream is not None:
            with suppress(BrokenPipeError):  # the parent has ended
                os.write(stream, event_line(event))

    with events.listening(listener):
        if not train(order, partial(attempt, order), partial(ended, order)):
            sys.exit(1)  # so that the others are stopped, which may wait for this one


def end_with_parent() -> None:
    """Save and end, as after Ctrl-C, when the process that gave the order has ended without a word."""
    parent_ended(None)
    os.kill(os.getpid(), signal.SIGTERM)


def train(order: Order, begin: Callable[[], None], end: Callable[[Exception | None], None]) -> bool:
    """Train beside the other processes. The one that leads calls `begin` before; `end` is given the error that another
    attempt would meet again, if there is one. Returns whether the others end by themselves, too. Raises what another
    attempt may not meet."""
    leads = os.environ["RANK"] == "0"
    try:
        if leads:
            begin()
        ranks.join()
        with ranks.losses_named():
            job = same(lambda: resume(Path(order.run), True, order.ignore_stop, holds=leads))
        learn(replace(job, clock=order.to_clock()), order.log)
    except (UserError, Diverged, Interrupted) as error:
        if getattr(error, "code", "") == NOT_MET:
            raise  # another process died meanwhile, so that all are started again
        if getattr(error, "code", "") == DIFFER and not leads:
            return True  # process 0 tells it
        end(error)
        return isinstance(error, Interrupted)
    if leads:
        end(None)
    return True


if __name__ == "__main__":
    main()
