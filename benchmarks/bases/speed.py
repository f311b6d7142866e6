"""A step of LoRA on a language model against PEFT with the Trainer of transformers: `python -m benchmarks.bases.speed
FOLDER` takes the steps that FOLDER/ask.json asks for, as a run is trained.

Both open the same folder, and learn an adapter of the same rank on the same layers by batches of the same size, in the
same precision, with one thread. They live at once and take turns. Speeds are those of the processor's time, of which
other work on the machine takes nothing and in which one thread never waits; those of the clock stand beside them.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tests.peak import peak_memory

from afresh.core import Cond, Examples, Space
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training import loop
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner
from afresh.engine.training.lora import LoraConfig
from afresh.engine.training.plan import make_learner
from afresh.engine.training.weights import BaseWeights
from afresh.runs.base_model import open_base_model
from benchmarks.bases.peers.peft import PACKAGES, Ask
from benchmarks.bases.shapes import SHAPES, write_base
from benchmarks.common.folders import write_json
from benchmarks.common.processes import run
from benchmarks.common.results import Row
from benchmarks.common.turns import Side, Turns

OURS, THEIRS = "benchmarks.bases.speed", "benchmarks.bases.peers.peft"
TURNS, STEPS, THREADS = 6, 1, 1  # the first turn warms up
TOKENS = 1024  # of a micro-batch, as the planner cuts the steps of a decoder of this size on a CPU


@dataclass(frozen=True)
class Case:
    """`least`: the ratio of speeds that should be reached."""

    shape: str
    targets: tuple[str, ...]
    precision: str
    least: float


LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NEOX = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
CASES = (
    Case("SmolLM2-135M", LLAMA, "float32", 1.3),
    Case("SmolLM2-135M", LLAMA, "bfloat16", 1.3),
    Case("Pythia-160M", NEOX, "float32", 1.0),
)


def learner_of(ask: Ask) -> tuple[Learner, Space]:
    """The base with a new adapter, as at the start of training; the base itself is not kept beside it."""
    base = open_base_model(ask.model)
    space = replace(base.encoder.space, shape=(ask.length,))
    config = TrainConfig(
        steps=ask.total,
        batch=ask.batch,
        micro_batch=max(1, TOKENS // ask.length),
        precision=ask.precision,
        threads=torch.get_num_threads(),
        optimizer="adamw",
        lr=ask.rate,
        save_every=10**6,
        eval_every=10**6,
        preview_every=10**6,
    )
    weights = BaseWeights(base.weights, LoraConfig(rank=ask.rank, alpha=ask.alpha))
    return make_learner(base.family, base.config, space, {}, config, weights), space


def train(ask: Ask, folder: Path) -> None:
    learner, space = learner_of(ask)
    learnt = sum(p.numel() for p in learner.params("model"))
    vocab, count = space.vocab[0], ask.total * ask.batch
    drawn = torch.randint(vocab // 2, vocab, (count * ask.length,), generator=torch.Generator().manual_seed(0))
    examples = Examples(drawn.int(), Cond(1), bounds=torch.tensor([0, len(drawn)]))
    turns = Turns(folder, ask.steps)
    hooks = loop.Hooks(
        replan=lambda learner: turns.begin(learner.step), tick=lambda metrics: turns.end(learner.step - 1)
    )
    batches = Loader(examples, space, Rng(0), ask.batch).batch
    loop.run(learner, batches, folder / "checkpoints", Rng(0), hooks)
    write_json(folder / "answer.json", {"memory": peak_memory(), "learnt": learnt})


@dataclass
class Found:
    """Seconds of a step in each turn but the first, on the clock and of the processor; the most bytes of memory."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: int = 0
    learnt: int = 0


def in_turn(ask: Ask, root: Path) -> Mapping[str, Found]:
    """What afresh and PEFT took, each in a process of its own."""
    found = {OURS: Found(), THEIRS: Found()}
    with ThreadPoolExecutor(2) as pool:
        sides = {}
        for module in found:
            folder = root / module
            folder.mkdir()
            write_json(folder / "ask.json", asdict(ask))
            sides[module] = Side(folder, pool.submit(run, [module, str(folder)], folder / "log", threads=THREADS))
        for turn in range(ask.turns):
            for module in list(found) if turn % 2 == 0 else list(found)[::-1]:
                took = sides[module].turn(turn)
                print(f"{ask.model}, turn {turn}, {module}: {took}", flush=True)
                if turn:
                    found[module].seconds.append(took["seconds"])
                    found[module].processor.append(took["processor"])
    for module, one in found.items():
        answered: dict[str, Any] = json.loads((root / module / "answer.json").read_text())
        one.memory, one.learnt = answered["memory"], answered["learnt"]
    assert found[OURS].learnt == found[THEIRS].learnt
    return found


def rows_of(case: Case, ask: Ask, found: Mapping[str, Found]) -> list[Row]:
    ours, theirs = found[OURS], found[THEIRS]
    what = f"LoRA, {case.shape}'s shape, {case.precision}"
    each = ask.batch * ask.length
    n = (
        f"{ask.turns - 1} turns of {ask.steps} step, rank {ask.rank}, {ours.learnt:,} weights learn, {ask.batch} x "
        f"{ask.length} tokens, {THREADS} threads"
    )

    def speed(title: str, kind: str, goal: str = "stated", least: float = 0.0) -> Row:
        rates = [[each / s for s in getattr(side, kind)] for side in (ours, theirs)]
        ratio = statistics.median(b / a for a, b in zip(getattr(ours, kind), getattr(theirs, kind), strict=True))
        shown = [f"{statistics.median(r):,.0f}; {min(r):,.0f} to {max(r):,.0f}" for r in rates]
        return Row(what, title, shown[0], f"{shown[1]} (PEFT, Trainer)", ratio, goal, ratio >= least, n)

    share = ours.memory / theirs.memory
    shown = [f"{side.memory / 1e9:.2f} GB" for side in (ours, theirs)]
    peak = Row(
        what, "most memory of the process", shown[0], f"{shown[1]} (PEFT, Trainer)", share, "at most 1", share <= 1, n
    )
    return [
        speed("tokens a second of the processor's time", "processor", f"at least {case.least:g}x", case.least),
        speed("tokens a second by the clock", "seconds"),
        peak,
    ]


def rows() -> list[Row]:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise SystemExit(f"This benchmark compares with PEFT: pip install {' '.join(missing)}.")
    made: list[Row] = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            base = write_base(Path(name) / "base", SHAPES[case.shape])
            ask = Ask(str(base), list(case.targets), 16, 32.0, 4, 256, case.precision, TURNS, STEPS)
            made += rows_of(case, ask, in_turn(ask, Path(name)))
    return made


if __name__ == "__main__":
    where = Path(sys.argv[1])
    train(Ask(**json.loads((where / "ask.json").read_text())), where)
