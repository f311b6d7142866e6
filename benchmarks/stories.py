"""Quality for the minute on stories and books in byte pairs (benchmarks/minutes.py)."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.minutes import pairs
from benchmarks.table import save


def main() -> None:
    save("stories", pairs(Path(os.environ["AFRESH_DATA"])))


if __name__ == "__main__":
    main()
