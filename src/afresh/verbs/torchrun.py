"""A command that torchrun, or what starts processes like it, runs in every process at once.

Process 0 begins as a single process would: it reads, plans, and makes the run's folder. The others wait, and open the
run as `resume` does. After a restart the run goes on from its newest checkpoint.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import ParamSpec

import torch

import afresh
from afresh import __version__
from afresh.core import UserError
from afresh.engine.training import ranks
from afresh.engine.training.training_clock import Clock
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
        with ranks.losses_named():
            ranks.join()
            path = ranks.from_leader(None if job is None else str(job.run.path.resolve()))
            return same(lambda: job or beside(Path(path)))

    return begin


def lead(start: Callable[[], Job]) -> Job:
    """The job that process 0 begins, or after a restart goes on with."""
    store = ranks.agent_store()
    if store is not None and ranks.restarted() and store.check([KEY]):
        from afresh.verbs.resume import resume

        known = json.loads(store.get(KEY))
        clock = None if known["clock"] is None else Clock.of_wall(*known["clock"])
        return replace(resume(Path(known["run"]), True, known["ignore_stop"]), clock=clock)
    job = start()
    if store is not None:
        wall = None if job.clock is None else job.clock.wall()
        known = {"run": str(job.run.path.resolve()), "ignore_stop": job.ignore_stop, "clock": wall}
        store.set(KEY, json.dumps(known))
    return job


def beside(run: Path) -> Job:
    """The job of a process that trains beside the one that leads, which has made the run."""
    if not run.is_dir():
        raise UserError(f"It does not see the run's folder, {run}.", ranks.DIFFER)
    from afresh.verbs.resume import resume

    return resume(run, True, holds=False)


def same(open_job: Callable[[], Job]) -> Job:
    """The job that each process opens. Raises UserError, the same in all, if one of them could not open it, or has
    other programs or data than process 0."""
    job: Job | None = None
    problem: UserError | None = None
    try:
        job = open_job()
    except UserError as error:
        problem = error
    run = "" if job is None else sha256((job.run.path / "run.json").read_bytes()).hexdigest()
    data = "" if job is None else job.prepared.split_hash
    versions = {"version of afresh": __version__, "version of torch": str(torch.__version__)}
    digest, root = sha256(), Path(afresh.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    hashes = {"source code of afresh": digest.hexdigest(), "data": data, "run": run}
    own = {"host": socket.gethostname(), "problem": str(problem or ""), **versions, **hashes}
    everybody = ranks.from_all(own)
    if problem is not None and ranks.leads():
        raise problem
    check_same(everybody)
    assert job is not None
    return job


def check_same(everybody: Sequence[Mapping[str, str]]) -> None:
    """Raises UserError if a process has something else than process 0, of its versions before all."""
    first = everybody[0]
    names = [name for name in first if name not in ("host", "problem", "data", "run")]
    for number, own in enumerate(everybody):
        who = f"Process {number}, on {own['host']},"
        for name in names:
            if own[name] != first[name]:
                values = f": {own[name]}, and not {first[name]}" if name.startswith("version") else ""
                raise UserError(
                    f"{who} has another {name} than process 0, on {first['host']}{values}. Install the same on all "
                    "machines.",
                    ranks.DIFFER,
                )
    for number, own in enumerate(everybody):
        who = f"Process {number}, on {own['host']},"
        if first["problem"]:  # which process 0 tells in its own words
            raise UserError(first["problem"], ranks.DIFFER)
        if own["problem"]:
            raise UserError(
                f"{who} cannot open the run or its data: {own['problem']} All machines need the run's folder and the "
                "data at the same path, as on a file system over the network.",
                ranks.DIFFER,
            )
        for name in ("data", "run"):
            if own[name] != first[name]:
                raise UserError(
                    f"{who} has another {name} than process 0, on {first['host']}, at the same path. All machines need "
                    "the same folders, as on a file system over the network.",
                    ranks.DIFFER,
                )
