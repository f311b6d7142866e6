"""The curves of a run, while it learns and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from afresh.core import UserError
from afresh.engine.training.metrics_log import Row, read_rows

MOST_POINTS = 240  # of a curve


def loss_curves(path: Path, most: int = MOST_POINTS) -> dict[str, list[float | None]]:
    """{"step": steps, name: values}: the losses, with None where one was not measured; at most about `most` points.

    Empty if nothing was logged yet, or if the file is damaged.
    """
    try:
        rows = read_rows(path / "metrics.jsonl")
    except (UserError, OSError):
        return {}
    names = [n for n in dict.fromkeys(k for row in rows for k in row) if n.endswith("loss")]
    kept = thinned(rows, names, most)
    return {"step": [row["step"] for row in kept], **{n: [finite(row.get(n)) for row in kept] for n in names}}


def thinned(rows: Sequence[Row], names: Sequence[str], most: int) -> list[Row]:
    """Every so many rows, and each that has a value which is measured rarely."""
    every = max(1, math.ceil(len(rows) / most))
    rare = {n for n in names if sum(n in row for row in rows) <= most // 4}
    last = len(rows) - 1
    return [row for i, row in enumerate(rows) if i % every == 0 or i == last or rare & set(row)]


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def named_curves(curves: Mapping[str, Sequence[float | None]]) -> dict[str, Sequence[float | None]]:
    """The curves by names for people."""
    words = {"step": "step", "loss": "loss in training", "heldout_loss": "loss on what was held back"}
    return {words.get(name, name.replace("_", " ")): values for name, values in curves.items()}
