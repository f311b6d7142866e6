"""How many valid molecules a second runs draw, in one process that uses all cores, and in a process for each core.

    python -m benchmarks molecule_speed COUNT RUN[,KEY=VALUE...] ...

COUNT samples of each run; KEY=VALUE are settings of sampling, as in runs/moses,min_p=0.03,temperature=1.05. The time is
that of drawing and of RDKit, which reads each sample and writes it in canonical form; the model is loaded before. More
processes are faster, since RDKit reads one molecule at a time in each.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from multiprocessing import get_context
from typing import Any

import torch

import afresh
from afresh.domains.molecule.chem import readable
from afresh.runs.run import Run, metrics_rows
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save
from benchmarks.molecules.moses import settings_of


def draw(run: str, count: int, seed: int, threads: int, settings: Mapping[str, Any], begin: Any, drawn: Any) -> None:
    """Draw when all processes are ready; tell how many samples are valid."""
    torch.set_num_threads(threads)
    model = afresh.load(run)
    model.sample(64, **settings)  # builds the engine
    begin.wait()
    drawn.put(sum(readable(s) for s in model.sample(count, seed=seed, **settings).values))


def measured(run: str, count: int, processes: int, settings: Mapping[str, Any]) -> tuple[int, float]:
    """The valid ones among `count` samples, and the seconds."""
    context = get_context("spawn")
    begin, drawn = context.Barrier(processes + 1), context.Queue()
    threads = (os.cpu_count() or 1) // processes
    for seed in range(processes):
        given = (run, count // processes, seed, threads, settings, begin, drawn)
        context.Process(target=draw, args=given, daemon=True).start()
    begin.wait()
    start = time.perf_counter()
    valid = sum(drawn.get() for _ in range(processes))
    return valid, time.perf_counter() - start


def main(samples: str, *runs: str) -> None:
    count, rows, cores = int(samples), list[Row](), os.cpu_count() or 1
    for given in runs:
        run, *by_hand = given.split(",")
        settings = settings_of(by_hand)
        opened = Run.open(run)
        steps, size = metrics_rows(opened)[-1]["step"], opened.record.parameters / 1e6
        for processes in (1, cores):
            valid, seconds = measured(run, count, processes, settings)
            print(f"{given}, {processes} processes: {valid / seconds:,.0f} valid a second, {valid / count:.4f} valid")
            benchmark = f"{opened.record.family}, {size:.2f}M weights, {steps:,} steps of {opened.record.train.batch}"
            asked = "".join(f", {k} {v}" for k, v in settings.items())
            where = "one process" if processes == 1 else "a process for each core"
            ours = f"{valid / seconds:,.0f}, {valid / count:.1%} valid"
            what = f"valid molecules a second, {where}{asked}"
            rows.append(
                Row(benchmark, what, ours, goal="at least 3,000", reached=valid / seconds >= 3_000, n=f"{count:,}")
            )
    save("molecule_speed", rows)


BENCHMARKS = (Benchmark("molecule_speed", ("COUNT", "RUN"), 2, main),)
