"""Connections to Ray clusters: the extra `cluster`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from afresh.core.errors import UserError

LOCAL = "local"  # instead of an address: a cluster that is started on this machine, and ended with the work
STORE = 512 << 20  # bytes of a local cluster's store of objects
CLIENT, PORT = "ray://", 10001  # the port of addresses without one
OLDEST = (2, 52)  # that a page in a browser of this machine cannot make run programs (CVE-2025-62593)


def ray_module() -> Any:
    """Ray. Raises UserError if it is not installed, or too old to be safe."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed. Install it: pip install 'afresh[cluster]'", "no_ray") from None
    check_version(version("ray"))
    return ray


def check_version(installed: str) -> None:
    """Raises UserError for a Ray that has a known hole."""
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST:
        raise UserError(
            f"Ray {installed} lets web pages that are open on its machine run programs there (CVE-2025-62593), so it "
            "is not used. Install a newer one on all machines: pip install -U 'afresh[cluster]'",
            "old_ray",
        )


def full_address(address: str) -> str:
    """The address with the port that Ray's clients use, if it names none."""
    host = address.removeprefix(CLIENT)
    return f"{address}:{PORT}" if address.startswith(CLIENT) and ":" not in host else address


@contextmanager
def connected(address: str, processes: int) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; a local one has so many CPUs. A connection that this process has already is
    used, and left open.

    Raises UserError if Ray is not installed or the cluster cannot be reached.
    """
    ray = ray_module()
    if ray.is_initialized():
        yield ray
        return
    connect(ray, address, processes)
    try:
        yield ray
    finally:
        ray.shutdown()


def connect(ray: Any, address: str, processes: int) -> None:
    here: dict[str, Any] = {"num_cpus": processes, "include_dashboard": False, "object_store_memory": STORE}
    try:
        ray.init(
            address=LOCAL if address == LOCAL else full_address(address),  # None would join one that runs here
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(here if address == LOCAL else {}),
        )
    except Exception as error:  # of a machine that is too busy to start it, Ray raises no more special one
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The cluster {address} cannot be reached: {reason.rstrip('.')}. Give the address of a Ray cluster "
            "that runs, as ray://HOST:10001, or `local` for one on this machine.",
            "no_cluster",
        ) from None
