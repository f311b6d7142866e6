"""Windows of a series: arrays (columns, steps) of float32 in the units of the data, NaN where a value is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import ItemKind, Preview
from afresh.core.safe_text import shell_word
from afresh.data import array_file
from afresh.data.image.grid import GridSettings
from afresh.domains.series.pictures import curves

MOST_BYTES = 1 << 28  # of the file of a window


def describe(window: NDArray[np.float32]) -> str:
    columns, steps = window.shape
    there = window[np.isfinite(window)]
    return f"{steps:,} steps of {columns} columns" + (
        f" from {there.min():.4g} to {there.max():.4g}" if len(there) else ""
    )


def previews(windows: Sequence[NDArray[np.float32]]) -> list[Preview]:
    """Pictures of curves, each column between its least and its greatest value."""
    return [Preview(image=curves(w)) for w in windows]


def decode(content: bytes) -> NDArray[np.float32]:
    """The array of a .npy file. Raises ValueError if it is not one of real numbers (columns, steps)."""
    window = array_file.load(content, MOST_BYTES)
    if not array_file.real_numbers(window) or window.ndim != 2:
        raise ValueError("it is not an array (columns, steps) of real numbers")
    return np.asarray(window, np.float32)


def forecast_command(run: str, data: Path | None, options: Mapping[str, Any]) -> str:
    """How a run on series is used: to say what comes after its data. A run with columns known in advance would need
    their future, which its data may not have: it looks for values that were unlikely."""
    source = "" if data is None else shell_word(str(data))
    if options.get("known"):
        return f"afresh anomalies {run} --from {source}" if source else f"afresh anomalies {run}"
    return f"afresh forecast {run} --from {source}" if source else f"afresh forecast {run}"


# What follows a known context resembles what followed it, so that near duplicates and near copies say nothing.
SERIES = ItemKind(
    name="series",
    plural="windows",
    view="image",
    digest=array_file.digest,
    describe=describe,
    previews=previews,
    size=lambda window: "x".join(map(str, window.shape)),
    unit="values",
    encode=array_file.encode,
    decode=decode,
    suffix=".npy",
    suffixes=frozenset({".npy"}),
    searched=0,
    use=forecast_command,
    result_settings=GridSettings,
)
