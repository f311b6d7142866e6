"""The processes that clean batches. What they run in is this module, which imports little: they start at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

from afresh.data.storage.ray_cluster import connected


class Cluster(Executor):
    """Runs functions as tasks of Ray. Their module must be installed on every machine.

    Raises UserError if Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, address: str, processes: int) -> None:
        self.connection = ExitStack()
        self.ray = self.connection.enter_context(connected(address, processes))
        # How many batches are cleaned side by side.
        self.processes = int(self.ray.cluster_resources().get("CPU", 1))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self.ray.remote(fn).remote(*args, **kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.connection.close()


@contextmanager
def workers(processes: int, cluster: str = "") -> Iterator[tuple[Executor | None, int]]:
    """What cleans batches, None for one process, which is this; and how many are cleaned side by side."""
    if cluster:
        with Cluster(cluster, processes) as pool:
            yield pool, pool.processes
    elif processes == 1:
        yield None, 1
    else:
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=end_with_parent) as pool:
            yield pool, processes


def end_with_parent() -> None:
    """A process that cleans waits for work for ever; it shall end when the one that gives it work is killed."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()
