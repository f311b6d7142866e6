"""A flow of clothes steered by a planted preference: 500 pairs of its own samples, judged by a rater with 5% noise.

The rater prefers light pictures: the mean over the pixels above the point that 40% of the base's samples exceed. Of two
that are alike in this he picks one by chance. The model learnt the pictures of the benchmark `fashion` without their
classes (a shoe cannot be made light, and the share of shoes would be asked for with the classes); nothing of the rule
is told but the votes. Measured: the share of light pictures among 1,000 new samples, and recall, coverage and KID by
the judge of `fashion`, of the base, of the steered models, of the best of several samples of the base by the same
votes, and of real pictures of which as many are light as the goal asks, which is the most that steering can reach.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from afresh.api import Model
from afresh.engine.alignment.alignment_batches import REWARD_MODEL
from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import work_folder, write_json
from benchmarks.common.processes import run
from benchmarks.common.results import Row, save
from benchmarks.images.judges import Judge, judge_of
from benchmarks.images.pictures import Task, contender, prepared
from benchmarks.images.sets import Side

PAIRS, FLIPPED, LIGHT = 500, 0.05, 0.4
SHARE, RECALL = 0.9, 0.8  # goals: of what is preferred; of the base's recall
SAMPLING: dict[str, Any] = {"solver": "dpmpp", "steps": 20}
BEST = 8  # candidates for each sample of the base
# How each method is asked for, beside the votes; chosen on this task (docs/development/log.md).
METHODS = {
    "rejection": [
        *("--steps", "400", "--set", "align.source=data", "--set", "align.samples=16", "--set", "align.keep=4"),
        *("--set", "train.lr=3e-4"),
    ],
    "nft": ["--steps", "240"],
}


def light(x: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(x.reshape(len(x), -1).mean(1) / 255)


def votes(base: Run, folder: Path) -> float:
    """Write the pairs and the votes on them; returns the point above which a picture is light."""
    (folder / "items").mkdir(parents=True, exist_ok=True)
    drawn = np.stack(Model(base).sample(2 * PAIRS, seed=11, **SAMPLING).values)
    b = light(drawn)
    point = float(np.quantile(b, 1 - LIGHT))
    chance, lines = random.Random(0), []
    for i in range(0, 2 * PAIRS, 2):
        for k in (i, i + 1):
            Image.fromarray(drawn[k][:, :, 0]).save(folder / "items" / f"{k}.png")
        first, second = b[i] > point, b[i + 1] > point
        winner = chance.choice("ab") if first == second else "a" if first else "b"
        if chance.random() < FLIPPED:
            winner = {"a": "b", "b": "a"}[winner]
        lines.append(json.dumps({"a": f"items/{i}.png", "b": f"items/{i + 1}.png", "winner": winner}))
    (folder / "votes.jsonl").write_text("\n".join(lines) + "\n")
    return point


def judged(x: NDArray[np.uint8], point: float, judge: Judge) -> dict[str, float]:
    """What 1,000 pictures are like."""
    marks = judge.judge(x, np.zeros(len(x), np.int64))
    return {"light": float((light(x) > point).mean()), **{k: marks[k].value for k in ("recall", "coverage", "kid")}}


def drawn(run: Run, n: int, best: int = 1, reward: str | None = None) -> NDArray[np.uint8]:
    torch.set_num_threads(run.record.train.threads)
    return np.stack(Model(run).sample(n, seed=12, best=best, reward=reward, **SAMPLING).values)


def real(task: Task, point: float) -> NDArray[np.uint8]:
    """Training pictures of which SHARE are light."""
    x, n, chance = task.loaded.train.x, task.set.samples, np.random.default_rng(0)
    is_light = light(x) > point
    many = round(SHARE * n)
    rows = [chance.choice(np.flatnonzero(is_light), many, False), chance.choice(np.flatnonzero(~is_light), n - many)]
    return x[np.concatenate(rows)]


def without_classes(task: Task, folder: Path) -> Task:
    """The task with neither classes nor guidance."""

    def plain(side: Side) -> Side:
        return replace(side, y=np.zeros(len(side), np.int64))

    loaded = replace(task.loaded, train=plain(task.loaded.train), held=plain(task.loaded.held), classes=())
    alone = replace(task.set, settings={"flow": {"solver": "dpmpp"}})
    return replace(task, loaded=loaded, set=alone, folder=folder)


def steered(base: Run, name: str, folder: Path) -> Run:
    out = folder / name
    argv = ["afresh", "align", str(base.path), "--method", name, "--preferences", str(folder / "votes.jsonl")]
    argv += [*METHODS[name], "--out", str(out), "--force", "--no-measure"]
    argv += ["--set", "sample.steps=8", "--set", "sample.solver=dpmpp"]
    run(argv, folder / f"{name}.log", core=0)
    return Run.open(out)


def row(what: str, now: dict[str, float], beside: str, base: dict[str, float], goal: bool) -> Row:
    values = f"{now['light']:.3f}; {now['recall']:.3f}; {now['coverage']:.3f}; {now['kid']:.0f}"
    reached = now["light"] >= SHARE and now["recall"] >= RECALL * base["recall"]
    aim = f"share at least {SHARE}, recall at least {RECALL} of the base's" if goal else "stated"
    title = f"{what}, {PAIRS} votes: share of what is preferred; recall; coverage; KID x1000"
    return Row("steering, clothes", title, values, beside, goal=aim, reached=reached or not goal, n="1,000")


def main() -> None:
    folder = work_folder("steer_pictures")
    labelled = prepared("fashion", None, 0)
    judge = judge_of(labelled.loaded, labelled.set.samples)
    task = without_classes(labelled, folder / "base")
    contender(task, "flow", judge)
    base = Run.open(task.folder / "flow" / "run")
    point = votes(base, folder)
    n, found = task.set.samples, dict[str, dict[str, float]]()
    found["base"] = judged(drawn(base, n), point, judge)
    found["real"] = judged(real(task, point), point, judge)
    for name in METHODS:
        found[name] = judged(drawn(steered(base, name, folder), n), point, judge)
        print(name, found[name], flush=True)
    found["best"] = judged(drawn(base, n, BEST, str(folder / "rejection" / REWARD_MODEL)), point, judge)
    write_json(folder / "found.json", found)
    said = {
        k: "; ".join(f"{found[k][s]:.3g}" for s in ("light", "recall", "coverage", "kid")) for k in ("base", "real")
    }
    beside = f"base {said['base']}; real pictures, {SHARE:.0%} light: {said['real']}"
    cores = "1 core" if task.threads == 1 else f"{task.threads} cores"
    about = f"{task.minutes:g} min of {cores}"
    rows = [row(f"{k} of a flow ({about})", found[k], beside, found["base"], True) for k in METHODS]
    rows.append(row(f"the best of {BEST} of the base", found["best"], beside, found["base"], False))
    save("steer_pictures", rows)


BENCHMARKS = (Benchmark("steer_pictures", ("fashion_mnist_small",), 30, main),)
