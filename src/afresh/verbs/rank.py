"""One of several processes that train a run together, as torchrun starts it: `python -m afresh.verbs.rank`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch

from afresh import __version__
from afresh.core import UserError, events
from afresh.training import ranks
from afresh.training.loop import Diverged, Interrupted
from afresh.verbs.processes import VARIABLE, ended, event_line, order_of
from afresh.verbs.resume import resume
from afresh.verbs.training_job import Job, follow, learn


def main() -> None:
    """Train, and say how it ended. The exit code is 0 also after an error that another attempt would meet again."""
    order = order_of(os.environ[VARIABLE])
    if order.ended.exists():  # started again because others ended after an error
        return
    (Path(order.folder) / f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    leads = os.environ["RANK"] == "0"
    stream = os.open(order.events, os.O_WRONLY) if leads else None

    def listener(event: events.Event) -> None:
        if stream is not None:
            os.write(stream, event_line(event))

    with events.listening(listener):
        try:
            with ranks.joined():
                job = replace(resume(Path(order.run), True, order.ignore_stop, holds=leads), clock=order.to_clock())
                check_same(job)
                if leads:
                    learn(job, order.log)
                else:
                    follow(job)
        except (UserError, Diverged, Interrupted) as error:
            ended(order, error)
            if not isinstance(error, Interrupted):
                sys.exit(1)  # so that the others are stopped, which may wait for this one
            return
    if leads:
        ended(order, None)


def check_same(job: Job) -> None:
    """Raises UserError unless all processes have the same programs and data."""
    own = {
        "afresh": __version__,
        "torch": torch.__version__,
        "data": job.prepared.split_hash,
        "run": sha256((job.run.path / "run.json").read_bytes()).hexdigest(),
    }
    everybody = ranks.from_all(own)
    for number, other in enumerate(everybody):
        for name, value in other.items():
            if value != everybody[0][name]:
                raise UserError(
                    f"Process {number} has another {name} than process 0: {value}, and not {everybody[0][name]}. All "
                    "need the same versions and the same data, at the same path.",
                    "ranks_differ",
                )


if __name__ == "__main__":
    main()
