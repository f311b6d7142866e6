"""Ray clusters for tests, whose machines are processes of this machine. They hold however busy it is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

STORE = 80 << 20  # bytes of a machine's store of objects: Ray takes no less
START = 600  # seconds in which a machine must have started


@contextmanager
def patient() -> Iterator[None]:
    """Within the block, a machine that starts is waited for: Ray gives it 30 seconds, which cannot be set."""
    services = pytest.importorskip("ray._private.services", reason="needs Ray: make complete")
    ask = services.get_node

    def get_node(*given: Any) -> Any:
        until = time.monotonic() + START
        while True:
            try:
                return ask(*given)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "get_node", get_node)
        yield


@contextmanager
def first_machine() -> Iterator[Any]:
    """A cluster of one machine with one CPU."""
    with patient(), pytest.MonkeyPatch.context() as patch:
        from ray.cluster_utils import Cluster

        patch.setenv("RAY_worker_niceness", "0")  # others of this machine come first otherwise
        patch.setenv("RAY_worker_register_timeout_seconds", str(START))
        cluster = Cluster()
        try:
            add_machine(cluster, include_dashboard=False)
            yield cluster
        finally:
            cluster.shutdown()


def add_machine(cluster: Any, **options: Any) -> Any:
    """A further machine of a cluster, with one CPU; the first one leads."""
    machine = cluster.add_node(num_cpus=1, object_store_memory=STORE, **options)
    cluster.wait_for_nodes(START)
    return machine


def lose(cluster: Any, machine: Any) -> None:
    """Kill a machine at once, with all that runs on it."""
    workers = children(machine.all_processes["raylet"][0].process.pid)
    cluster.remove_node(machine, allow_graceful=False)
    for number in workers:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """The numbers of the processes that a process has started."""
    numbers = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                numbers.append(int(folder.name))
    return numbers
