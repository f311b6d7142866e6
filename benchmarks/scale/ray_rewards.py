"""A reward that costs time, asked by one and by two workers of a Ray cluster on this machine.

The reward waits for each item, as for a judge over the network; the processes of `align` divide the items. Counted is
from the first item that is asked about in training to the last, so that starting Ray is left out, and drawing the
samples, which every process does for all, is in.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import afresh
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save

WAIT, BATCH, STEPS = 0.02, 64, 12  # seconds for an item, items of a step, steps
REWARD = """
import os, time

def slow(text: str) -> float:
    time.sleep({wait})
    if "WORLD_SIZE" in os.environ:  # in training, not in the check before it
        with open({log!r}, "a") as file:
            print(time.time(), file=file)
    return float(text.count("1"))
"""


def items_a_second(base: afresh.Model, folder: Path, processes: int) -> float:
    """Items of training that get their reward in a second."""
    log, program = folder / f"asked-{processes}", folder / f"reward{processes}.py"
    program.write_text(REWARD.format(wait=WAIT, log=str(log)))
    settings: dict[str, Any] = {"train.threads": 1, "train.batch": BATCH, "train.eval_every": STEPS}
    settings |= {"train.micro_batch": BATCH // 2, "train.save_every": STEPS, "align.group": 8}
    base.align(
        reward=f"{program}:slow",
        steps=STEPS,
        length=24,
        out=folder / f"aligned-{processes}",
        settings=settings,
        processes=processes,
        on="local",
        quiet=True,
    )
    times = sorted(float(line) for line in log.read_text().splitlines())[: STEPS * BATCH]
    return (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "lines.txt"
        text.write_text("\n".join(f"line {i}: {i * i % 97} and {i % 7}" for i in range(2_000)))
        small = {"family.width": 32, "family.layers": 1, "family.heads": 2, "family.kv_heads": 2, "train.threads": 1}
        base = afresh.train(text, steps=60, out=folder / "base", settings=small, quiet=True)
        one, two = (items_a_second(base, folder, processes) for processes in (1, 2))
    row = Row(
        "rewards on Ray workers",
        f"items a second of a reward that takes {1e3 * WAIT:g} ms, two workers and one",
        f"{two:.1f}",
        f"{one:.1f}",
        two / one,
        "at least 1.6",
        two / one >= 1.6,
        f"{STEPS * BATCH} items",
    )
    print(f"{row.benchmark}, {row.what}: {row.ours} and {row.theirs}, {row.ratio:.2f} times", flush=True)
    save("ray_rewards", [row])


BENCHMARKS = (Benchmark("ray_rewards", (), 5, main),)
