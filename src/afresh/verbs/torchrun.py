"""A command that torchrun, or what starts processes like it, runs in every process at once.

Process 0 begins as a single process would: it reads, plans, and makes the run's folder. The others wait, and open the
run as `resume` does. After a restart the run goes on from its newest checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import ParamSpec

import torch

from afresh import __version__
from afresh.core import UserError
from afresh.training import ranks
from afresh.training.training_clock import Clock
from afresh.verbs.resume import resume
from afresh.verbs.training_job import Job

P = ParamSpec("P")
KEY = "afresh/run"  # in the store of torchrun: the run, and when the command began


def together(start: Callable[P, Job]) -> Callable[P, Job]:
    """`start`, which returns a job, for the process that leads; the others open the run that it made."""

    @wraps(start)
    def begin(*args: P.args, **options: P.kwargs) -> Job:
        if not ranks.launched() or ranks.started():
            return start(*args, **options)
        job = None
        if os.environ["RANK"] == "0":
            job = lead(lambda: start(*args, **options))
        ranks.join()
        path = ranks.from_leader(None if job is None else str(job.run.path.resolve()))
        if job is None:
            job = resume(Path(path), True, holds=False)
        check_same(job)
        return job

    return begin


def lead(start: Callable[[], Job]) -> Job:
    """The job that process 0 begins, or after a restart goes on with."""
    store = ranks.agent_store()
    if store is not None and ranks.restarted() and store.check([KEY]):
        known = json.loads(store.get(KEY))
        clock = None if known["clock"] is None else Clock.of_wall(*known["clock"])
        return replace(resume(Path(known["run"]), True, known["ignore_stop"]), clock=clock)
    job = start()
    if store is not None:
        wall = None if job.clock is None else job.clock.wall()
        known = {"run": str(job.run.path.resolve()), "ignore_stop": job.ignore_stop, "clock": wall}
        store.set(KEY, json.dumps(known))
    return job


def check_same(job: Job) -> None:
    """Raises UserError unless all processes have the same programs and data."""
    record = sha256((job.run.path / "run.json").read_bytes()).hexdigest()
    own = {"afresh": __version__, "torch": torch.__version__, "data": job.prepared.split_hash, "run": record}
    everybody = ranks.from_all(own)
    for number, other in enumerate(everybody):
        for name, value in other.items():
            if value != everybody[0][name]:
                raise UserError(
                    f"Process {number} has another {name} than process 0: {value}, and not {everybody[0][name]}. All "
                    "need the same versions and the same data, at the same path.",
                    "ranks_differ",
                )
