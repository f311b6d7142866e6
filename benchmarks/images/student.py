"""A student in one, two and four steps beside its teacher in twenty, the guided flow of the benchmark `fashion`.

`afresh distill` for 12 minutes; both draw the same 1,000 requests, judged as in `fashion`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import work_folder
from benchmarks.common.ours import conditions
from benchmarks.common.processes import run
from benchmarks.common.results import Row, save
from benchmarks.images.judges import judge_of
from benchmarks.images.pictures import Task, prepared
from benchmarks.images.sets import SETS

MINUTES, STEPS = 12, (1, 2, 4)
AWAY, FASTER = 1.3, 5.0  # of four steps: at most so many times the teacher's distance, at least so many times its speed


def drawn(run: Run, task: Task, judge: Any, **settings: Any) -> dict[str, float]:
    """Scores of 1,000 samples, and how many a second."""
    torch.set_num_threads(run.record.train.threads)
    cond = conditions(run, task.requests, 0)
    begun = time.perf_counter()
    x = run.draw(run.modules, cond, 12, run.settings(settings))
    took = time.perf_counter() - begun
    marks = judge.judge(np.stack(run.encoder.decode(x)), task.classes)
    return {**{k: marks[k].value for k in ("kid", "recall", "coverage")}, "pace": len(x) / took}


def shown(found: dict[str, float]) -> str:
    return f"{found['kid']:.1f}; {found['recall']:.3f}; {found['coverage']:.3f}; {found['pace']:.0f}"


def main() -> None:
    task = prepared("fashion", None, 0)
    own, out = task.folder / "flow", work_folder("student") / "run"
    guided = SETS["fashion"].settings["flow"]
    if not (out / "report.json").exists():
        argv = ["afresh", "distill", str(own / "run"), "--minutes", str(MINUTES), "--out", str(out), "--force"]
        argv += ["--no-measure", "--guidance", f"{guided['guidance']:g}"]
        argv += [p for k in ("low", "high") for p in ("--set", f"family.guidance_{k}={guided[f'guidance_{k}']}")]
        run(argv, out.parent / "log", core=0)
    judge = judge_of(task.loaded, task.set.samples)
    teacher = drawn(Run.open(own / "run"), task, judge, **{**guided, "steps": 20})
    beside, rows = f"teacher, 20 steps: {shown(teacher)}", []
    for steps in STEPS:
        found = drawn(Run.open(out), task, judge, steps=steps)
        ratio, pace = found["kid"] / teacher["kid"], found["pace"] / teacher["pace"]
        goal = f"distance at most {AWAY:g} times, speed at least {FASTER:g} times" if steps == 4 else ""
        reached = steps != 4 or (ratio <= AWAY and pace >= FASTER)
        cores = "" if task.threads == 2 else f" of {task.threads} core"
        what = f"student, steps: {steps}, {MINUTES} min{cores}: KID x1000; recall; coverage; samples a second"
        ours = f"{shown(found)} ({pace:.1f} times the teacher's)"
        rows.append(Row("few steps, clothes", what, ours, beside, ratio, goal, reached, "1,000"))
        print(rows[-1], flush=True)
    save("student", rows)


BENCHMARKS = (Benchmark("student", ("fashion_mnist_small",), 30, main),)
