"""metrics.jsonl: one line for each logged step, none of which is later than the saved weights."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from afresh.core import UserError
from afresh.core.files import free_bytes, replace_file


class Journal:
    """Appends lines to `path`, after removing those of later steps than `step`, which a crash may have left. Times
    continue from the last line.

    Every method raises UserError if the disk is full or not writable.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rewind(step)
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self.start = time.perf_counter() - (json.loads(lines[-1]).get("seconds", 0.0) if lines else 0.0)

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a line for a step, with the seconds since the start of training."""
        seconds = round(time.perf_counter() - self.start, 3)
        line = (json.dumps({"step": step, "seconds": seconds, **metrics}) + "\n").encode()
        try:
            with self.path.open("ab") as f:
                f.write(line)
        except OSError as e:
            raise UserError(
                f"Could not write {self.path}: {e.strerror or e}. It needs {len(line):,} bytes; "
                f"{free_bytes(self.path.parent):,} are free. Make room, then `resume`."
            ) from e

    def rewind(self, step: int) -> None:
        """Remove the lines of steps after `step`, and incomplete lines."""
        old = self.path.read_bytes() if self.path.exists() else b""
        new = b"".join(line for line in old.splitlines(keepends=True) if step_of(line) <= step)
        if new != old:
            replace_file(self.path, new)


def step_of(line: bytes) -> float:
    """The step of a line; infinite if a crash cut the line short."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
