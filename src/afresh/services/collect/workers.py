"""The processes that clean batches. What they run in is this module, which imports little: they start at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread


@contextmanager
def workers(processes: int, cluster: str = "") -> Iterator[tuple[Executor | None, int]]:
    """What cleans batches, None for one process, which is this; and how many are cleaned side by side."""
    if cluster:
        from afresh.services.collect.cluster import Cluster

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
