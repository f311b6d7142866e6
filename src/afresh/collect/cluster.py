"""Batches are cleaned by the machines of a Ray cluster: the extra `cluster`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from afresh.core import UserError

LOCAL = "local"  # instead of an address: a cluster that is started on this machine, and ended with the work
STORE = 512 << 20  # bytes of a local cluster's store of batches that wait


class Cluster(Executor):
    """Runs functions as tasks of Ray. Their module must be installed on every machine.

    Raises UserError if Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, address: str, processes: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
        try:
            import ray
        except ImportError:
            raise UserError("Ray is not installed. Install it: pip install 'afresh[cluster]'", "no_ray") from None
        self.ray = ray
        here: dict[str, Any] = {"num_cpus": processes, "include_dashboard": False, "object_store_memory": STORE}
        try:
            ray.init(
                address=None if address == LOCAL else address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **(here if address == LOCAL else {}),
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"The cluster {address} cannot be reached: {reason.rstrip('.')}. Give the address of a Ray cluster "
                "that runs, as ray://HOST:10001, or `local` for one on this machine.",
                "no_cluster",
            ) from None
        # How many batches are cleaned side by side.
        self.processes = int(ray.cluster_resources().get("CPU", 1))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self.ray.remote(fn).remote(*args, **kwargs).future()
        return future

    def __enter__(self) -> Cluster:
        return self

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.ray.shutdown()
