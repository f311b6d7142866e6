"""Starting programs in two processes, and acting on a run while processes train it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def under_torchrun(module: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """A module with its arguments, in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", *module], env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@contextmanager
def at(run: Path, steps: Sequence[int], act: Callable[[], None]) -> Iterator[list[int]]:
    """Act once after the run has saved each of these steps; yields those at which it has acted."""
    left, acted, ended = list(steps), list[int](), threading.Event()

    def watch() -> None:
        while left and not ended.wait(0.02):
            saved = [int(f.name) for f in (run / "checkpoints").glob("[0-9]*")]
            if saved and max(saved) >= left[0]:
                act()
                acted.append(left.pop(0))
                ended.wait(1.0)  # until the processes are started again

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield acted
    finally:
        ended.set()
        thread.join()
