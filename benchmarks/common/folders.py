"""Where benchmarks find data, and where they keep what they make."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def data_folder(name: str = "") -> Path:
    """The folder of a data set in AFRESH_DATA. Raises SystemExit where that is not set."""
    if "AFRESH_DATA" not in os.environ:
        raise SystemExit("Set AFRESH_DATA to the folder that holds the data sets.")
    return Path(os.environ["AFRESH_DATA"]) / name


def has_data(name: str) -> bool:
    """Whether a data set is in AFRESH_DATA."""
    return "AFRESH_DATA" in os.environ and data_folder(name).is_dir()


def work_folder(name: str) -> Path:
    """Where a benchmark keeps what it made: AFRESH_BENCH/NAME, or ~/.cache/afresh-bench/NAME."""
    root = os.environ.get("AFRESH_BENCH")
    folder = (Path(root) if root else Path.home() / ".cache" / "afresh-bench") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_json(path: Path, value: Any) -> None:
    """Written aside and renamed."""
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(value, indent=1) + "\n")
    aside.replace(path)
