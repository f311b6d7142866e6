"""Contenders side by side: each a process of its own on a processor of its own, so that both meet the same machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(arguments: Sequence[str], core: int, log: Path) -> subprocess.Popen[bytes]:
    """`python -m ARGUMENTS` on one processor, with one thread; what it prints goes to the file."""
    cores = sorted(os.sched_getaffinity(0))
    only = {cores[core % len(cores)]}
    plain = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=plain,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, only),
        )


def finish(process: subprocess.Popen[bytes], log: Path) -> str:
    """What it printed. Raises RuntimeError with that when it failed."""
    code = process.wait()
    text = log.read_text(errors="replace")
    if code:
        raise RuntimeError(f"exit code {code}:\n{text[-2000:]}")
    return text
