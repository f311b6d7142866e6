"""Batches are cleaned by the machines of a Ray cluster: the extra `cluster`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
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

    def __enter__(self) -> Cluster:
        return self

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.connection.close()
