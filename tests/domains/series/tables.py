"""Small tables of series, as the tests of the domain read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from afresh.faces.cli import run as command

CONTEXT, HORIZON = 48, 12  # of the runs that the tests train
TINY = ("--set", "family.widths=[16]", "--set", "family.emb=16", "--set", "train.batch=16")
HOUR = timedelta(hours=1)
BEGIN = datetime(2024, 1, 1)


def times(count: int, step: timedelta = HOUR, begin: datetime = BEGIN) -> list[str]:
    return [str(begin + i * step) for i in range(count)]


def waves(count: int, period: int = 24, noise: float = 0.1, seed: int = 0) -> dict[str, Any]:
    """Two columns of one period, the second of which follows the first."""
    draw = np.random.default_rng(seed)
    a = np.sin(2 * np.pi * np.arange(count) / period) + noise * draw.standard_normal(count)
    return {"load": 10 + 3 * a, "heat": 5 - 2 * np.roll(a, 1) + noise * draw.standard_normal(count)}


def train(data: Path, out: Path, steps: int = 60) -> Path:
    """A run on a table, trained for a moment."""
    sizes = ("--data", f"context={CONTEXT}", "--data", f"horizon={HORIZON}")
    assert command(["train", str(data), "--steps", str(steps), "--out", str(out), "--no-measure", *TINY, *sizes]) == 0
    return out


def write(path: Path, **columns: Sequence[Any]) -> Path:
    rows = zip(*columns.values(), strict=True)
    cells = (",".join("" if v is None or v != v else str(v) for v in row) for row in rows)
    path.write_text("\n".join([",".join(columns), *cells, ""]), encoding="utf-8")
    return path


def write_waves(path: Path, count: int = 400, gaps: Mapping[str, Sequence[int]] | None = None, **more: Any) -> Path:
    """Hourly `load` and `heat`, with empty cells in `gaps` and further columns."""
    columns = waves(count)
    for name, places in (gaps or {}).items():
        columns[name][list(places)] = np.nan
    return write(path, time=times(count), **columns, **more)
