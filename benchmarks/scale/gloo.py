"""Sums of two processes of this machine by gloo, for the model of communication."""

from __future__ import annotations

import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

from afresh.engine.training import ranks
from benchmarks.common.folders import write_json
from benchmarks.common.results import Row, this_machine
from benchmarks.scale.model import fit
from benchmarks.scale.together import run_together

MODULE = "benchmarks.scale.gloo"
MEASURED = Path(__file__).with_name("gloo.json")
# Bytes -> how often: 1 kB to 256 MB.
SIZES = {1_000 * 4**k: repeats for k, repeats in enumerate((200, 200, 200, 100, 100, 40, 20, 10, 7, 5))}


def rows() -> list[Row]:
    """Measures anew, and keeps what was measured for the page of the model."""
    log = MEASURED.with_suffix(".log")
    try:
        run_together([MODULE, str(MEASURED)], log, 2)
    finally:
        log.unlink(missing_ok=True)
    line = fit(seconds())
    return [
        Row(
            "several processes, exchange",
            "sum of two processes by gloo, 1 kB to 256 MB, as latency + bytes / rate",
            f"{line.latency * 1e3:.2f} ms + bytes / {line.rate / 1e6:,.0f} MB/s",
            f"error of this line: median {line.median_error:.0%}, at most {line.largest_error:.0%}",
            n=f"medians of {min(SIZES.values())} to {max(SIZES.values())} sums of {len(SIZES)} sizes",
        )
    ]


def known() -> dict[str, Any]:
    """What was measured: machine, when, load and {bytes: seconds}."""
    found: dict[str, Any] = json.loads(MEASURED.read_text())
    return found


def seconds() -> dict[float, float]:
    """{bytes: seconds} of a sum."""
    return {float(size): took for size, took in known()["seconds"].items()}


def main(file: Path) -> None:
    torch.set_num_threads(1)
    ranks.join()
    took = {size: ranks.seconds_of_sum(size // 4, repeats, torch.device("cpu")) for size, repeats in SIZES.items()}
    if ranks.leads():
        load = f"{os.getloadavg()[0]:.1f}"
        write_json(file, {"machine": this_machine(), "when": str(date.today()), "load": load, "seconds": took})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
