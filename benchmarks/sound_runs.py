"""Runs that draw sounds, for benchmarks: trained by the command, asked for samples, judged; what is made is kept.

    python -m benchmarks.sound_runs FOLDER

draws what FOLDER/wanted.json asks of FOLDER/run. In a process of its own: sampling is timed alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.core import Cond
from afresh.runs.run import Run, summary
from afresh.sampling.request import Request
from benchmarks.picture_ours import pace
from benchmarks.pictures import finish, write_json
from benchmarks.sound_scores import Mark

ALONE = 8  # sounds drawn one by one


@dataclass(frozen=True)
class Labelled:
    """One sample for every name, with the labels beside it, by a seed, with sampling settings."""

    names: tuple[str, ...]
    labels: tuple[dict[str, str], ...]
    seed: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What was trained. `rate`: clips a second of training; `batch` and `alone`: seconds of drawing for a second of
    sound, all at once and one by one (the median)."""

    recipe: str
    parameters: int
    steps: int
    seconds: float
    rate: float
    batch: float
    alone: float


def trained(run: Path, command: Sequence[str], threads: int) -> float:
    """Train by the arguments of the command, or go on where a run was stopped; the seconds of the part that ended it.
    Raises RuntimeError when the command fails."""
    done = run.with_name(f"{run.name}-trained.json")
    if not done.exists():
        arguments = (
            ["--resume", str(run)] if (run / "checkpoints").is_dir() else [*command, "--force", "--out", str(run)]
        )
        begun = time.perf_counter()
        finish(["afresh", "train", *arguments, "--no-measure"], run.parent, threads)
        write_json(done, {"seconds": time.perf_counter() - begun})
    return float(json.loads(done.read_text())["seconds"])


def drawn(folder: Path, wanted: Labelled) -> Answer:
    """The samples as sounds/NAME.wav beside the run; trained.json says how long its training took."""
    run = Run.open(folder / "run")
    asked = {json.dumps(labels): labels for labels in wanted.labels}
    one = {k: run.condition(1, Request(label=labels), wanted.seed)[0] for k, labels in asked.items()}
    cond = Cond.cat([one[json.dumps(labels)] for labels in wanted.labels])
    settings = run.settings(wanted.settings)

    def some(rows: torch.Tensor) -> tuple[list[Any], float]:
        """Sounds, and seconds for a second of them."""
        begun = time.perf_counter()
        sounds = run.encoder.decode(run.draw(run.modules, cond.select(rows), wanted.seed, settings, rows))
        return list(sounds), (time.perf_counter() - begun) / sum(s.seconds for s in sounds)

    few = torch.linspace(0, cond.size - 1, ALONE).long()
    some(few[:2])  # loads the weights and warms up
    alone = float(np.median([some(row)[1] for row in few.split(1)]))
    sounds, batch = some(torch.arange(cond.size))
    aside = folder / "sounds.part"
    shutil.rmtree(aside, ignore_errors=True)
    run.encoder.write(sounds, aside, list(wanted.names))
    shutil.rmtree(folder / "sounds", ignore_errors=True)
    aside.replace(folder / "sounds")
    recipe = f"afresh {run.record.family} {json.dumps(run.record.config)}, sampled with {settings.model_dump_json()}"
    spent = json.loads((folder / "trained.json").read_text())["seconds"]
    rate = pace(folder / "run" / "metrics.jsonl") * run.record.train.batch
    return Answer(recipe, run.record.parameters, summary(run)["steps"], spent, rate, batch, alone)


def answered(
    folder: Path, module: str, request: Mapping[str, Any], threads: int, judge: Callable[[Path], dict[str, Mark]]
) -> tuple[Answer, dict[str, Mark]]:
    """The answer of `python -m MODULE FOLDER` to the request and the marks of its sounds, as far as they were not made
    before for the same request."""
    wanted, asked, answer, scores = (folder / f"{k}.json" for k in ("wanted", "asked", "answer", "scores"))
    write_json(wanted, request)
    if not asked.exists() or asked.read_text() != wanted.read_text():
        for old in (asked, answer, scores):
            old.unlink(missing_ok=True)
        finish([module, str(folder)], folder, threads)
        write_json(asked, request)
    if not scores.exists():
        write_json(scores, {k: asdict(m) for k, m in judge(folder / "sounds").items()})
    marks = {k: Mark(**m) for k, m in json.loads(scores.read_text()).items()}
    return Answer(**json.loads(answer.read_text())), marks


if __name__ == "__main__":
    where = Path(sys.argv[1])
    write_json(where / "answer.json", asdict(drawn(where, Labelled(**json.loads((where / "wanted.json").read_text())))))
