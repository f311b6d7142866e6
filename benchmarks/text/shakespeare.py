"""tiny-Shakespeare: how soon, and how well.

Time to nanoGPT's CPU result: how much of its wall time until its final full-validation loss is reached.

Ours is `afresh train` as a user calls it: the time counts reading, measuring the machine, planning, training and
saving (not the report, and not the start of Python). The baseline's time is its training loop alone, in a process of
its own with torch's defaults, so that nothing that afresh sets slows it down.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from afresh.runs.run import Run
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.ours import nats
from benchmarks.common.processes import ask
from benchmarks.common.results import Row, save
from benchmarks.text.peers.nano_gpt import Ask, Result

SEEDS = (0, 1, 2)
# Of the baseline's time, at most; and as --minutes: reading, measuring and planning come on top.
GOALS = ((0.25, 0.18), (0.125, 0.105))


def ours(path: Path, seconds: float, seed: int, folder: Path) -> tuple[float, float, Run]:
    """(wall seconds, nats a character over the whole held-out tenth) of a run with a budget."""
    begun = time.perf_counter()
    job = start(TrainSpec(path, minutes=seconds / 60, seed=seed, out=folder))
    learn(job)
    wall = time.perf_counter() - begun
    return wall, nats(job.run, job.prepared) / len(job.prepared.heldout_items[0].value), job.run


def baseline(path: Path) -> Result:
    """nanoGPT's configuration in its own process, without the settings of this one."""
    with tempfile.TemporaryDirectory() as folder:
        return Result(**ask("benchmarks.text.peers.nano_gpt", Ask(str(path)), Path(folder)))


def main() -> None:
    path = data_folder("tinyshakespeare") / "input.txt"
    base = baseline(path)
    print(f"nanoGPT's CPU configuration: {base.loss:.4f} nats a character after {base.seconds:.1f} s", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for goal, budget in GOALS:
            for seed in SEEDS:
                wall, loss, run = ours(path, budget * base.seconds, seed, Path(root) / f"{goal}-{seed}")
                print(f"seed {seed}: {loss:.4f} after {wall:.1f} s; {run.record.parameters:,} parameters", flush=True)
                rows.append(
                    Row(
                        "tiny-Shakespeare",
                        f"nats a character, full validation, seed {seed}",
                        f"{loss:.3f} in {wall:.1f} s",
                        f"{base.loss:.3f} in {base.seconds:.1f} s (nanoGPT's CPU configuration)",
                        wall / base.seconds,
                        f"the same loss in at most {goal} of the time",
                        loss <= base.loss and wall <= goal * base.seconds,
                        "111,540 characters",
                    )
                )
    save("shakespeare", rows)


BENCHMARKS = (Benchmark("shakespeare", ("tinyshakespeare",), 3, main),)
