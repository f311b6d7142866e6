"""Runs of afresh in benchmarks: trained by the command, as a user would, and then asked for samples.

`python -m benchmarks.common.ours FOLDER` draws what FOLDER/ask.json asks of FOLDER/run, into FOLDER/samples. In a
process of its own: drawing is timed alone.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.core import Cond
from afresh.data.prepare import Prepared
from afresh.engine.sampling.request import Request
from afresh.runs.about import AboutRun
from afresh.runs.run import Run
from benchmarks.common import processes
from benchmarks.common.folders import write_json
from benchmarks.common.processes import Answer, answer, ask


@dataclass(frozen=True)
class Wanted:
    """A sample for every name, each with its request ({"label": ...}, {"caption": ...} or nothing), by a seed, with
    settings of sampling; `seconds`: how long the run was trained; `alone`: how many are drawn one by one as well."""

    names: list[str]
    requests: list[dict[str, Any]]
    seed: int
    settings: dict[str, Any]
    seconds: float
    alone: int = 0


def train(run: Path, arguments: Sequence[str], threads: int | None = None) -> float:
    """`afresh train ARGUMENTS`, or going on where a run was stopped; the seconds of the part that ended it, which are
    kept. Raises RuntimeError when the command fails."""
    done, log = run.with_name(f"{run.name}-trained.json"), run.with_name("log")
    if not done.exists():
        where = ["--resume", str(run)] if (run / "checkpoints").is_dir() else [*arguments, "--force", "--out", str(run)]
        begun = time.perf_counter()
        processes.run(["afresh", "train", *where, "--no-measure"], log, threads=threads)
        write_json(done, {"seconds": time.perf_counter() - begun})
    return float(json.loads(done.read_text())["seconds"])


def conditions(run: Run, requests: Sequence[dict[str, Any]], seed: int) -> Cond:
    """A row for each request."""
    if not any(requests):
        return run.condition(len(requests), Request(), seed)[0]
    different = {json.dumps(r): r for r in requests}
    row = {key: run.condition(1, Request(**r), seed)[0] for key, r in different.items()}
    return Cond.cat([row[json.dumps(r)] for r in requests])


def pace(path: Path) -> float:
    """Steps a second, the median over the lines of metrics.jsonl (evaluating and previews lie between some)."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps, seconds = (np.diff([float(line[k]) for line in lines]) for k in ("step", "seconds"))
    return float(np.median(steps[seconds > 0] / seconds[seconds > 0])) if (seconds > 0).any() else 0.0


def draw(wanted: Wanted, folder: Path) -> Answer:
    """Writes the samples and tells what they cost."""
    run = Run.open(folder / "run")
    cond = conditions(run, wanted.requests, wanted.seed)
    settings = run.settings(wanted.settings)

    def some(rows: torch.Tensor) -> tuple[list[Any], float]:
        """Samples, and the seconds for each of them, or for a second of their sound."""
        begun = time.perf_counter()
        values = run.encoder.decode(run.draw(run.modules, cond.select(rows), wanted.seed, settings, rows))
        spent = time.perf_counter() - begun
        return list(values), spent / sum(1.0 if (s := run.encoder.hear(v)) is None else s.seconds for v in values)

    some(torch.arange(min(8, cond.size)))  # loads the weights and warms up
    few = torch.linspace(0, cond.size - 1, wanted.alone).long()
    alone = float(np.median([some(row)[1] for row in few.split(1)])) if wanted.alone else 0.0
    values, batch = some(torch.arange(cond.size))
    aside = folder / "samples.part"
    shutil.rmtree(aside, ignore_errors=True)
    run.encoder.write(values, aside, wanted.names)
    shutil.rmtree(folder / "samples", ignore_errors=True)
    aside.replace(folder / "samples")
    recipe = f"afresh {run.record.family} {json.dumps(run.record.config)}, sampled with {settings.model_dump_json()}"
    rate = pace(folder / "run" / "metrics.jsonl") * run.record.train.batch
    return Answer(recipe, run.record.parameters, AboutRun(run).steps, wanted.seconds, rate, batch, alone)


def nats(run: Run, prepared: Prepared) -> float:
    """Of every held-out text, together."""
    from afresh.verbs.measuring import RunEvidence

    likelihood = RunEvidence(run, prepared).likelihood()
    assert likelihood is not None
    return float(likelihood[0].sum())


def samples_of(folder: Path, wanted: Wanted, threads: int) -> Answer:
    """What drawing the request in FOLDER/samples took, from before where it was the same. Otherwise it is drawn, and
    scores.json, which is of other samples, goes."""
    asked, answered = folder / "ask.json", folder / "answer.json"
    if answered.exists() and asked.exists() and json.loads(asked.read_text()) == asdict(wanted):
        return Answer(**json.loads(answered.read_text()))
    for old in (answered, folder / "scores.json"):
        old.unlink(missing_ok=True)
    return Answer(**ask("benchmarks.common.ours", wanted, folder, threads=threads))


if __name__ == "__main__":
    answer(Wanted, draw)
