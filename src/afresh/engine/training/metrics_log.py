"""metrics.jsonl: one line for each logged step, none of which is later than the saved weights."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from afresh.core import UserError
from afresh.core.safe_json import MOST_STEPS, faults, parse_json, read_bytes
from afresh.data.storage.files import append_lines, free_bytes, replace_file


def check_row(row: dict[str, float]) -> dict[str, float]:
    step, seconds = row.get("step", -1.0), row.get("seconds", -1.0)
    if not 0 <= step <= MOST_STEPS or step != int(step):
        raise ValueError("step must be a whole number from 0")
    if not 0 <= seconds < math.inf:
        raise ValueError("seconds must be a number from 0")
    return {k: int(v) if k == "step" else v for k, v in row.items()}


Row = dict[str, float]  # of metrics.jsonl: step, seconds and metrics by name, which need not be finite
ROW = TypeAdapter(Annotated[Row, AfterValidator(check_row)])


class Journal:
    """Appends lines to `path`, after removing those of later steps than `step`, which a crash may have left. Times
    continue from the last line.

    Every method raises UserError if the disk is full or not writable.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rewind(step)
        rows = read_rows(path)
        self.start = time.perf_counter() - (rows[-1]["seconds"] if rows else 0.0)

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a line for a step, with the seconds since the start of training."""
        seconds = round(time.perf_counter() - self.start, 3)
        line = (json.dumps({"step": step, "seconds": seconds, **metrics}) + "\n").encode()
        try:
            append_lines(self.path, line, sync=False)  # training does not wait for its log
        except OSError as e:
            raise UserError(
                f"Could not write {self.path}: {e.strerror or e}. It needs {len(line):,} bytes; "
                f"{free_bytes(self.path.parent):,} are free. Make room, then `resume`."
            ) from e

    def rewind(self, step: int) -> None:
        """Remove the lines of steps after `step`, and incomplete lines."""
        old = read_bytes(self.path) if self.path.exists() else b""
        new = b"".join(line for line in old.splitlines(keepends=True) if step_of(line) <= step)
        if new != old:
            replace_file(self.path, new)


def step_of(line: bytes) -> float:
    """The step of a line; infinite if it is not one that `append` writes, because a crash cut it short."""
    try:
        return parse_row(line)["step"] if line.endswith(b"\n") else math.inf
    except ValueError:
        return math.inf


def parse_row(line: bytes) -> Row:
    """A line of metrics.jsonl. Raises ValueError if it is not JSON, and pydantic's ValidationError if it is not an
    object of numbers with a step and the seconds since the start of training."""
    return ROW.validate_python(parse_json(line))


def read_rows(path: Path) -> list[Row]:
    """The lines of metrics.jsonl, without those that a crash cut short; empty if there is no such file.

    Raises UserError, naming the line and the field, if a line holds something else than `append` writes.
    """
    rows = []
    for number, line in enumerate(read_bytes(path).splitlines() if path.exists() else [], 1):
        try:
            rows.append(parse_row(line))
        except ValidationError as e:
            raise UserError(
                f"{path}, line {number:,}: {faults(e)}. Remove the line, or restore a copy of the file.", "damaged"
            ) from None
        except ValueError:
            continue
    return rows
