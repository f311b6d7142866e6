"""Two processes of one thread each against one process of two threads: `python -m benchmarks.scale.speed FOLDER` trains
what FOLDER/ask.json names, alone or with another, by the loop that trains a run.

The networks are those of `benchmarks/training/steps.py`, as the planner takes them in minutes. Both sides live at once
and take turns of a few steps, so that a machine that becomes slower or faster does so for both. Beside the clock on the
wall stands that of the processor, for which it matters less what else the machine does; it counts no waiting.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from afresh.core import registry
from afresh.core.options import override
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training import loop, ranks
from afresh.engine.training.budget import measure_machine
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner
from afresh.engine.training.plan import make_learner
from benchmarks.common.folders import write_json
from benchmarks.common.results import Row
from benchmarks.common.turns import Side, wait_until
from benchmarks.scale.together import run_together
from benchmarks.training.steps import CASES, examples_of

MODULE = "benchmarks.scale.speed"
REPEATS, STEPS, LEAST = 5, 2, 0.9
BATCH = {"transformer": 16, "flow, U-Net": 64}
MICRO_BATCH = {"transformer": 8, "flow, U-Net": 64}  # 1,024 tokens, as the planner cuts a decoder's steps


@dataclass(frozen=True)
class Ask:
    """`turns` of so many `steps`, of which the first one warms up."""

    case: str
    precision: str
    turns: int
    steps: int


@dataclass(frozen=True)
class Took:
    """Of a step in one turn: seconds; of them, those in process 0 that the exchange took, waiting included; and seconds
    of the processor in all processes together."""

    seconds: float
    exchange: float
    processor: float


class Turns:
    """A hook of the loop before each step: waits for each turn, and writes what it took. One process waits and writes,
    and the others wait for it."""

    def __init__(self, ask: Ask, folder: Path) -> None:
        self.ask, self.folder, self.turn = ask, folder, 0
        self.begun = self.marks()

    def marks(self) -> tuple[float, float, float]:
        return time.perf_counter(), ranks.exchanged.seconds, time.process_time()

    def begin(self) -> None:
        if ranks.leads():
            wait_until((self.folder / f"go{self.turn}").exists)
        self.begun = self.marks()

    def __call__(self, learner: Learner) -> None:
        if learner.step == 0 or learner.step % self.ask.steps:
            return
        took = [(now - before) / self.ask.steps for now, before in zip(self.marks(), self.begun, strict=True)]
        took[2] = sum(ranks.numbers_of_all(took[2]))
        if ranks.leads():
            write_json(self.folder / f"took{self.turn}.json", asdict(Took(*took)))
        self.turn += 1
        if self.turn < self.ask.turns:
            self.begin()


def train(ask: Ask, folder: Path) -> None:
    case = CASES[ask.case]
    family = registry.family(case.family)
    examples, conds = examples_of(case.space)
    start = TrainConfig(
        steps=ask.turns * ask.steps + 1,  # a turn ends before the next step
        batch=BATCH[ask.case],
        micro_batch=MICRO_BATCH[ask.case],
        precision=ask.precision,
        threads=torch.get_num_threads(),
        save_every=10**6,
        eval_every=10**6,
        preview_every=10**6,
    )
    config = override(start, family.plan.recipe(case.space), "train")
    learner = make_learner(family, family.config(**case.config), case.space, conds, config)
    turns = Turns(ask, folder)
    turns.begin()
    batches = Loader(examples, case.space, Rng(0), config.batch).batch
    loop.run(learner, batches, folder / "checkpoints", Rng(0), loop.Hooks(replan=turns))


def took_in_turn(ask: Ask, root: Path) -> dict[int, list[Took]]:
    """{processes: what each turn took}, without the first one."""
    found: dict[int, list[Took]] = {1: [], 2: []}
    with ThreadPoolExecutor(2) as pool:
        sides = {}
        for processes in found:
            folder = root / f"{processes}"
            folder.mkdir()
            write_json(folder / "ask.json", asdict(ask))
            words, log = [MODULE, str(folder)], folder / "log"
            sides[processes] = Side(folder, pool.submit(run_together, words, log, processes, 2 // processes))
        for turn in range(ask.turns):
            for processes in (1, 2) if turn % 2 == 0 else (2, 1):
                took = Took(**sides[processes].turn(turn))
                print(f"{ask.case}, turn {turn}, {processes}: {took}", flush=True)
                if turn:
                    found[processes].append(took)
    return found


def compared(case: str, precision: str, steps: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        found = took_in_turn(Ask(case, precision, REPEATS + 1, steps), Path(name))
    title = f"several processes, {case}, {precision}"
    n = f"medians of {REPEATS} turns of {steps} steps of {BATCH[case]} examples"
    share = statistics.median(t.exchange / t.seconds for t in found[2])
    made: list[Row] = []
    for what, seconds in (
        (f"examples a second, of which exchange and waiting take {share:.0%}", lambda t: t.seconds),
        ("examples a second of the processor's time", lambda t: t.processor),
    ):
        rates = {processes: [BATCH[case] / seconds(t) for t in took] for processes, took in found.items()}
        one, two = (statistics.median(rates[processes]) for processes in (1, 2))
        ratio = statistics.median(b / a for a, b in zip(rates[1], rates[2], strict=True))
        made.append(
            Row(
                title,
                f"two processes of one thread: {what}",
                f"{two:,.1f}; {min(rates[2]):,.1f} to {max(rates[2]):,.1f}",
                f"{one:,.1f} (one process of two threads); {min(rates[1]):,.1f} to {max(rates[1]):,.1f}",
                ratio,
                f"at least {LEAST:g}" if not made else "stated",
                ratio >= LEAST or bool(made),
                n,
            )
        )
    return made


def rows(*cases: str) -> list[Row]:
    precision = measure_machine("cpu").precision
    return [row for case in cases or tuple(BATCH) for row in compared(case, precision, STEPS)]


if __name__ == "__main__":
    ranks.join()
    where = Path(sys.argv[1])
    train(Ask(**json.loads((where / "ask.json").read_text())), where)
