"""Masked diffusion beside the Transformer, each trained on one thread on a budget of the same number of tokens, which
takes both about the same time (the CPU seconds of both are stated).

tiny-Shakespeare by characters: bits per byte of the whole held-out tenth (a bound for masked diffusion, exact for the
Transformer), holes of five characters in held-out text (the Transformer sees what stands before a hole alone), and
bits per byte of samples under an n-gram model, which neither optimises, beside those of held-out text. scikit-learn's
digits: conditional accuracy by an independent classifier.

The two runs of a seed train side by side, so that both meet the same machine. Tokens a CPU second are of equal networks
whose steps take turns.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.named_settings import named

from afresh.api import Model
from afresh.core import Batch, Cond, Space, registry
from afresh.core.rng import Rng
from afresh.engine.evaluation.estimate import share
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from afresh.engine.training.plan import make_learner
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.measuring import measure_run
from afresh.verbs.train import TrainSpec
from afresh.verbs.train import start as start_run
from afresh.verbs.training_job import learn
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder, write_json
from benchmarks.common.ours import nats
from benchmarks.common.processes import answer, start
from benchmarks.common.results import Row, save
from benchmarks.images.digits import write_digits
from benchmarks.text.ngram import ByteNgram, train_ngram

BOTH = ("masked", "transformer")
SEEDS = (0, 1)
TOKENS, DIGIT_TOKENS = 1_000_000, 400_000
HOLES, HOLE, BESIDE = 200, 5, 60  # holes, their characters, and the characters known on each side
TEXTS, LENGTH = 16, 256  # samples and their characters
GUIDANCE = 2.0


@dataclass(frozen=True)
class Found:
    """What was measured of a run: bits per byte; holes right as a whole, and characters in them; samples' bits."""

    bits: float
    whole: int
    characters: int
    samples: dict[str, float]


def train_both(path: Path, tokens: int, seed: int, folder: Path) -> dict[str, tuple[Run, float]]:
    """A run of each family and its CPU seconds (start of Python and planning included), learnt at the same time."""
    jobs = []
    for family in BOTH:
        out = folder / f"{family}{seed}"
        out.mkdir(parents=True)
        write_json(out / "ask.json", asdict(Ask(str(path), family, tokens, seed)))
        jobs.append((family, out, start(["benchmarks.text.masked", str(out)], out / "log")))
    found = {}
    for family, out, job in jobs:
        _, status, used = os.wait4(job.pid, 0)
        job.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise RuntimeError(f"training {family} failed with exit status {job.returncode}")
        found[family] = (Run.open(out / "run"), used.ru_utime + used.ru_stime)
    return found


@dataclass(frozen=True)
class Ask:
    path: str
    family: str
    tokens: int
    seed: int


def train_one(ask: Ask, folder: Path) -> dict[str, str]:
    """In a process of its own."""
    spec = TrainSpec(
        Path(ask.path),
        family=ask.family,
        tokens=ask.tokens,
        seed=ask.seed,
        out=folder / "run",
        settings=named(train={"threads": 1}),
    )
    learn(start_run(spec))
    return {}


# --------------------------------------------------------------------------- text


def holes(text: str, n: int) -> list[tuple[str, str, str]]:
    """n evenly spaced pieces of a text: (before, hole, after)."""
    size = BESIDE + HOLE + BESIDE
    starts = [i * (len(text) - size) // n for i in range(n)]
    pieces = [text[s : s + size] for s in starts]
    return [(p[:BESIDE], p[BESIDE : BESIDE + HOLE], p[BESIDE + HOLE :]) for p in pieces]


def filled(run: Run, asked: list[tuple[str, str, str]]) -> list[str]:
    """What a run puts into the holes, always its likeliest: a Transformer goes on from what stands before."""
    if run.family.sampling.fills:
        texts = [f"{before}[[{HOLE}]]{after}" for before, _, after in asked]
        got = Model(run).sample(len(texts), infill=texts, temperature=0.0, order="confidence", steps=0)
        return [str(v)[BESIDE : BESIDE + HOLE] for v in got.values]
    got = Model(run).sample(len(asked), prompt=[before for before, _, _ in asked], temperature=0.0, length=HOLE)
    return [str(v) for v in got.values]


def under(ngram: ByteNgram, texts: list[str]) -> float:
    """Bits per byte of texts under an n-gram model."""
    raw = [t.encode() for t in texts]
    return float(-np.concatenate([np.log2(ngram.probabilities(t)) for t in raw if t]).mean())


def judged(run: Run, path: Path) -> tuple[Found, str]:
    """A run's numbers, and the held-out text that they are of."""
    prepared = run_data(run, path if path.is_dir() else None)
    text = str(prepared.heldout_items[0].value)
    bits = nats(run, prepared) / math.log(2) / len(text.encode())
    asked = holes(text, HOLES)
    got = filled(run, asked)
    whole = sum(g == hole for g, (_, hole, _) in zip(got, asked, strict=True))
    same = sum(a == b for g, (_, hole, _) in zip(got, asked, strict=True) for a, b in zip(g, hole, strict=False))
    ngram = train_ngram(str(prepared.train_items[0].value).encode())
    ways: dict[str, dict[str, Any]] = {
        "a look each": {"steps": 0},
        "64 looks": {},
        "surest first": {"order": "confidence"},
    }
    samples = {}
    for name, told in ways.items() if run.family.sampling.fills else [("", {})]:
        samples[name] = under(ngram, [str(v) for v in Model(run).sample(TEXTS, length=LENGTH, **told).values])
    real = [text[i * (len(text) - LENGTH) // TEXTS :][:LENGTH] for i in range(TEXTS)]
    return Found(bits, whole, same, {**samples, "real": under(ngram, real)}), text


def language(path: Path, folder: Path) -> list[Row]:
    rows = []
    for seed in SEEDS:
        runs = train_both(path, TOKENS, seed, folder)
        found = {}
        for family, (run, _) in runs.items():
            found[family], text = judged(run, path)
            shape = (
                f"{run.record.parameters:,} parameters, {run.record.train.steps:,} steps of {run.record.train.batch}"
            )
            print(f"{family}, seed {seed}: {shape}, {runs[family][1]:.0f} CPU s, {found[family]}", flush=True)
        ours, theirs = found["masked"], found["transformer"]
        seconds = f"{runs['masked'][1]:.0f} and {runs['transformer'][1]:.0f} CPU s"
        rows += text_rows(ours, theirs, f"{TOKENS:,} tokens, {seconds}", seed, len(text.encode()))
    return rows


def text_rows(ours: Found, theirs: Found, budget: str, seed: int, size: int) -> list[Row]:
    name = f"masked diffusion, tiny-Shakespeare, seed {seed}"
    (_, beside), real = next(iter(theirs.samples.items())), ours.samples["real"]
    right, left = share(ours.whole, HOLES).value, share(theirs.whole, HOLES).value
    each = HOLES * HOLE
    rows = [
        Row(
            name,
            f"bits per byte (a bound) after {budget}",
            f"{ours.bits:.3f}",
            f"{theirs.bits:.3f} (Transformer, exact)",
            ours.bits / theirs.bits,
            n=f"{size:,} bytes",
        ),
        Row(
            name,
            f"holes of {HOLE} characters filled as they were",
            f"{right:.3f}",
            f"{left:.3f} (Transformer, from what stands before)",
            goal="more than the Transformer",
            reached=right > left,
            n=f"{HOLES}",
        ),
        Row(
            name,
            "characters in them as they were",
            f"{ours.characters / each:.3f}",
            f"{theirs.characters / each:.3f} (Transformer, from what stands before)",
            goal="more than the Transformer",
            reached=ours.characters > theirs.characters,
            n=f"{each:,}",
        ),
    ]
    for way in ("a look each", "64 looks", "surest first"):
        rows.append(
            Row(
                name,
                f"bits per byte of samples under a 6-gram model, {way}",
                f"{ours.samples[way]:.2f}",
                f"{beside:.2f} (Transformer); {real:.2f} (real text)",
                n=f"{TEXTS} x {LENGTH} characters",
            )
        )
    return rows


# --------------------------------------------------------------------------- speed


def speed(repeats: int = 15) -> Row:
    """Tokens trained on a CPU second by both, in networks of one shape (4 layers, 128 wide, 8 windows of 256)."""
    space = Space("tokens", (256,), (65,), {"end": 0, "begin": 0}, stream=True)
    batch = Batch(torch.randint(65, (8, 257)), Cond(8), torch.arange(8))
    learners = {}
    for name in BOTH:
        family = registry.family(name)
        shape = {"width": 128, "layers": 4, "heads": 4} | ({"kv_heads": 4} if name == "transformer" else {})
        told = TrainConfig(
            **{**family.plan.recipe(space), "steps": 1000, "batch": 8, "micro_batch": 8, "save_every": 1000}
        )
        learners[name] = make_learner(family, family.config(**shape), space, {}, told)
    times: dict[str, list[float]] = {name: [] for name in BOTH}
    for _ in range(repeats + 2):
        for name, learner in learners.items():
            begun = time.process_time()
            take_step(learner, batch, Rng(0))
            learner.step += 1
            times[name].append(time.process_time() - begun)
    rate = {name: 8 * 256 / statistics.median(t[2:]) for name, t in times.items()}
    return Row(
        "masked diffusion, training",
        "tokens a CPU second, 4 layers, 128 wide, float32, one thread",
        f"{rate['masked']:,.0f}",
        f"{rate['transformer']:,.0f} (Transformer)",
        rate["masked"] / rate["transformer"],
        n=f"median of {repeats}",
    )


# --------------------------------------------------------------------------- pictures


def digits(folder: Path) -> list[Row]:
    """Conditional accuracy of both on digits, as learnt and guided."""
    write_digits(folder / "digits")
    runs = train_both(folder / "digits", DIGIT_TOKENS, 0, folder / "pictures")
    rows = []
    for guidance in (1.0, GUIDANCE):
        scores = {}
        for family, (run, _) in runs.items():
            measured = measure_run(run, settings={"guidance": guidance}, judges=folder / "judges")
            scores[family] = next(s for s in measured.scores if s.name == "conditional_accuracy")
            print(f"digits, {family}, guidance {guidance:g}: {scores[family]}", flush=True)
        ours, theirs = scores["masked"], scores["transformer"]
        rows.append(
            Row(
                "masked diffusion, digits",
                f"conditional accuracy after {DIGIT_TOKENS:,} tokens, guidance {guidance:g}",
                f"{ours.value:.3f}",
                f"{theirs.value:.3f} (Transformer); {ours.floor:.3f} (real pictures)",
                goal="at least 0.95" if guidance > 1 else "stated",
                reached=ours.value >= 0.95 or guidance == 1,
                n=str(ours.n),
            )
        )
    return rows


def main() -> None:
    torch.set_num_threads(1)
    path = data_folder("tinyshakespeare") / "input.txt"
    with tempfile.TemporaryDirectory() as root:
        rows = [speed(), *language(path, Path(root)), *digits(Path(root))]
    save("masked", rows)


BENCHMARKS = (Benchmark("masked", ("tinyshakespeare",), 8, main),)

if __name__ == "__main__":
    answer(Ask, train_one)
