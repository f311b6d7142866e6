"""A collection in processes of their own that are ended by SIGKILL, each at its n-th point at which something is made
durable or put in place, and then go on.

Run as a program: FOLDER INTO PROCESSES POINT..., where the point 0 is none. It prints a line for each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import afresh


def main(folder: Path, into: Path, processes: int, points: list[int]) -> None:
    """Collect in a process for each point, which is made from this one so that modules are imported once."""
    from afresh.services.collect import gather as module
    from afresh.services.collect.sources import folder as source

    for point in points:
        child = os.fork()
        if not child:
            collect(module, source, folder, into, processes, point)
            sys.stdout.flush()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            print(json.dumps([code, "", point]), flush=True)


def collect(module: Any, source: Any, folder: Path, into: Path, processes: int, point: int) -> None:
    count = 0
    sync, replace, read = os.fsync, os.replace, source.read_bytes

    def reached() -> None:
        nonlocal count
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_sync(handle: int) -> None:
        reached()
        sync(handle)

    def dying_replace(*names: object) -> None:
        reached()
        replace(*names)  # type: ignore[arg-type]
        reached()

    def logged(file: Any, limit: int) -> bytes:
        with log_of(into).open("a") as lines:
            lines.write(f"{file.name}\n")
        content: bytes = read(file, limit)
        return content

    os.fsync, os.replace, source.read_bytes = dying_sync, dying_replace, logged  # type: ignore[assignment]
    module.BATCH = 4
    resume = (into / "dataset.json").exists()
    made = module.gather([module.place_of(str(folder))], into, resume=resume, processes=processes)
    print(json.dumps([0, made["digest"], count]))


def collected(folder: Path, into: Path, *points: int, processes: int = 1) -> list[tuple[int, str, int]]:
    """(exit code, digest, number of points that there were) of collections that are killed at points, one after the
    other; 0 is none."""
    root = Path(afresh.__file__).parent.parent
    command = [sys.executable, __file__, *map(str, (folder, into, processes, *points))]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return [(code, digest, count) for code, digest, count in lines]


def log_of(into: Path) -> Path:
    """The names of the files that were read, each as often as it was."""
    return into.with_suffix(".log")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), [int(p) for p in sys.argv[4:]])
