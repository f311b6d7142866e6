"""Starts processes that meet, without torchrun, which takes seconds to start and gives each a session of its own."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.processes import finish, start


def run_together(arguments: Sequence[str], log: Path, processes: int, threads: int = 1) -> None:
    """`python -m ARGUMENTS` in so many processes of this machine. Raises RuntimeError if one fails."""
    if processes == 1:
        finish(start(arguments, log, threads=threads), log)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    meeting["LOCAL_WORLD_SIZE"] = str(processes)
    ranks = [{"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)]
    started = [start(arguments, log, threads=threads, environment=meeting | own) for own in ranks]
    try:
        for process in started:
            finish(process, log)
    finally:
        for process in started:
            process.kill()
