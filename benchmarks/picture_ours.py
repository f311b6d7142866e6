"""Samples of a trained run for the picture benchmarks: `python -m benchmarks.picture_ours FOLDER SEED`.

FOLDER holds the run (run/), what is asked for (wanted.npz), how to sample (settings.json) and how long training took
(trained); it gets samples.npz and answer.json, as from a peer. In a process of its own: sampling is timed alone.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from afresh.core import Cond
from afresh.runs.run import Run, summary
from afresh.sampling.request import Request
from benchmarks.picture_peer import Answer, keep


def conditions(run: Run, wanted: Path, seed: int) -> Cond:
    """One request a row: a class, a caption, or nothing."""
    with np.load(wanted) as z:
        y, classes, captions = z["y"], z["classes"].tolist(), z["captions"].tolist()
    if not classes and not captions:
        return run.condition(len(y), Request(), seed)[0]
    asked = captions or [classes[i] for i in y]
    row = {
        a: run.condition(1, Request(caption=a) if captions else Request(label=a), seed)[0] for a in sorted(set(asked))
    }
    return Cond.cat([row[a] for a in asked])


def pace(path: Path) -> float:
    """Steps a second, the median over the lines of metrics.jsonl (evaluating and previews lie between some)."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps, seconds = (np.diff([float(line[k]) for line in lines]) for k in ("step", "seconds"))
    return float(np.median(steps[seconds > 0] / seconds[seconds > 0])) if (seconds > 0).any() else 0.0


def draw(folder: Path, seed: int) -> Answer:
    run = Run.open(folder / "run")
    cond = conditions(run, folder / "wanted.npz", seed)
    settings = run.settings(json.loads((folder / "settings.json").read_text()))
    run.draw(run.modules, cond.select(torch.arange(8)), seed, settings)  # loads the weights and warms up
    begun = time.perf_counter()
    x = run.encoder.decode(run.draw(run.modules, cond, seed, settings))
    seconds = time.perf_counter() - begun
    with np.load(folder / "wanted.npz") as z:
        keep(folder, np.stack(x), z["y"])
    recipe = f"afresh {run.record.family} {json.dumps(run.record.config)}, sampled with {settings.model_dump_json()}"
    spent = json.loads((folder / "trained").read_text())["seconds"]
    rate = pace(folder / "run" / "metrics.jsonl") * run.record.train.batch
    return Answer(recipe, run.record.parameters, summary(run)["steps"], spent, rate, cond.size / seconds)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    (where / "answer.json").write_text(json.dumps(asdict(draw(where, int(sys.argv[2])))))
