"""Time to nanoGPT's CPU result: how much of its wall time until its final full-validation loss is reached.

Ours is `afresh train` as a user calls it: the time counts reading, measuring the machine, planning, training and
saving (not the report). The baseline's time is its training loop alone.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from afresh.judge import RunEvidence
from afresh.run import Run
from afresh.train import Choices, learn, start
from benchmarks.nano_gpt import train
from benchmarks.table import Row, save

SEEDS = (0, 1, 2)
SHARE = 0.25  # of the baseline's time


def ours(path: Path, seconds: float, seed: int, folder: Path) -> tuple[float, float, Run]:
    """(wall seconds, nats a character over the whole held-out tenth) of a run with a budget."""
    begun = time.perf_counter()
    overhead = 2.0  # reading, measuring, planning: part of the wall time
    job = start(path, Choices(minutes=(seconds - overhead) / 60, seed=seed, out=folder), lambda line: None)
    learn(job, "quiet")
    wall = time.perf_counter() - begun
    found = RunEvidence(job.run, job.prepared).likelihood()
    assert found is not None
    characters = len(job.prepared.heldout_items[0].value)
    return wall, float(found[0].sum()) / characters, job.run


def main() -> None:
    path = Path(os.environ["AFRESH_DATA"]) / "tinyshakespeare" / "input.txt"
    base = train(path.read_text())
    print(f"nanoGPT's CPU configuration: {base.loss:.4f} nats a character after {base.seconds:.1f} s", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for seed in SEEDS:
            wall, loss, run = ours(path, SHARE * base.seconds, seed, Path(root) / str(seed))
            print(f"seed {seed}: {loss:.4f} after {wall:.1f} s; {run.record.parameters:,} parameters", flush=True)
            rows.append(
                Row(
                    "tiny-Shakespeare",
                    f"nats a character, full validation, seed {seed}",
                    f"{loss:.3f} in {wall:.1f} s",
                    f"{base.loss:.3f} in {base.seconds:.1f} s (nanoGPT's CPU configuration)",
                    wall / base.seconds,
                    f"the same loss in at most {SHARE} of the time",
                    loss <= base.loss and wall <= SHARE * base.seconds,
                    "111,540 characters",
                )
            )
    save("shakespeare", rows)


if __name__ == "__main__":
    main()
