"""Two processes of one thread each against one process of two threads: `python -m benchmarks.scale.speed FOLDER` trains
what FOLDER/ask.json names, alone or with another, by the loop that trains a run.

The networks are those of `benchmarks/training/steps.py`, as the planner takes them in minutes. Both sides take the same
steps on the same batches, in turn.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from afresh.core import registry
from afresh.core.options import override
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.training import loop, ranks
from afresh.training.budget import measure_machine
from afresh.training.config import TrainConfig
from afresh.training.plan import make_learner
from benchmarks.common.folders import write_json
from benchmarks.common.results import Row
from benchmarks.scale.together import run_together
from benchmarks.training.steps import CASES, examples_of

MODULE = "benchmarks.scale.speed"
REPEATS, SECONDS, WARM, LEAST = 3, 5.0, 5, 0.9
BATCH = {"transformer": 32, "flow, U-Net": 64}
MICRO_BATCH = {"transformer": 8, "flow, U-Net": 64}  # 1,024 tokens, as the planner cuts a decoder's steps


@dataclass(frozen=True)
class Ask:
    """`steps`: after WARM ones."""

    case: str
    precision: str
    steps: int


@dataclass(frozen=True)
class Took:
    """Seconds of a step; of them, those in process 0 that the exchange took, waiting included."""

    seconds: float
    exchange: float
    parameters: int


def train(ask: Ask, folder: Path) -> Took:
    case = CASES[ask.case]
    family = registry.family(case.family)
    examples, conds = examples_of(case.space)
    start = TrainConfig(
        steps=WARM + ask.steps,
        batch=BATCH[ask.case],
        micro_batch=MICRO_BATCH[ask.case],
        precision=ask.precision,
        threads=torch.get_num_threads(),
        **dict.fromkeys(("save_every", "eval_every", "preview_every"), 10_000),
    )
    config = override(start, family.plan.recipe(case.space), "train")
    learner = make_learner(family, family.config(**case.config), case.space, conds, config)
    at: list[tuple[float, float]] = []
    hooks = loop.Hooks(stepped=lambda now: at.append((time.perf_counter(), ranks.exchanged.seconds)))
    loop.run(learner, Loader(examples, case.space, Rng(0), config.batch).batch, folder / "checkpoints", Rng(0), hooks)
    seconds, exchange = (after - before for before, after in zip(at[WARM - 1], at[-1], strict=True))
    size = sum(p.numel() for m in learner.modules.values() for p in m.parameters())
    return Took(seconds / ask.steps, exchange / ask.steps, size)


def measured(processes: int, ask: Ask) -> Took:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / "ask.json", asdict(ask))
        run_together([MODULE, name], folder / "log", processes, threads=2 // processes)
        return Took(**json.loads((folder / "answer.json").read_text()))


def compared(case: str, precision: str) -> Row:
    first = measured(1, Ask(case, precision, 5))
    ask = Ask(case, precision, max(5, round(SECONDS / first.seconds)))
    found: dict[int, list[Took]] = {1: [], 2: []}
    for repeat in range(REPEATS):
        for processes in (1, 2) if repeat % 2 == 0 else (2, 1):
            found[processes].append(measured(processes, ask))
            print(case, precision, processes, found[processes][-1], flush=True)
    rates = {n: BATCH[case] / statistics.median(t.seconds for t in took) for n, took in found.items()}
    each = [f"{BATCH[case] / t.seconds:,.1f}" for t in found[2]], [f"{BATCH[case] / t.seconds:,.1f}" for t in found[1]]
    share = statistics.median(t.exchange / t.seconds for t in found[2])
    return Row(
        f"several processes, {case} ({first.parameters / 1e6:.2f}M)",
        f"examples a second of two processes of one thread, {precision}; {share:.0%} of a step is exchange and waiting",
        f"{rates[2]:,.1f}; {', '.join(each[0])}",
        f"{rates[1]:,.1f} (one process of two threads); {', '.join(each[1])}",
        rates[2] / rates[1],
        f"at least {LEAST:g}",
        rates[2] >= LEAST * rates[1],
        f"medians of {REPEATS} repeats of {ask.steps} steps in turn",
    )


def rows(*cases: str) -> list[Row]:
    precision = measure_machine("cpu").precision
    return [compared(case, precision) for case in cases or tuple(BATCH)]


if __name__ == "__main__":
    ranks.join()
    where = Path(sys.argv[1])
    took = train(Ask(**json.loads((where / "ask.json").read_text())), where)
    if ranks.leads():
        write_json(where / "answer.json", asdict(took))
