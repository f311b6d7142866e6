"""A student in one, two and four steps beside its teacher in twenty, the guided flow of the benchmark `fashion`.

`afresh distill` for 12 minutes; both draw the same 1,000 requests, judged as in `fashion`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.runs.run import Run
from benchmarks.judge_pictures import judge_of, work_folder
from benchmarks.picture_ours import conditions
from benchmarks.picture_sets import SETS
from benchmarks.pictures import prepared
from benchmarks.pinned import finish, start
from benchmarks.table import Row, save

MINUTES, STEPS = 12, (1, 2, 4)
AWAY, FASTER = 1.3, 5.0  # of four steps: at most so many times the teacher's distance, at least so many times its speed


def drawn(run: Run, wanted: Path, judge: Any, y: Any, **settings: Any) -> dict[str, float]:
    """Scores of 1,000 samples, and how many a second."""
    torch.set_num_threads(run.record.train.threads)
    cond = conditions(run, wanted, 0)
    begun = time.perf_counter()
    x = run.draw(run.modules, cond, 12, run.settings(settings))
    took = time.perf_counter() - begun
    marks = judge.judge(np.stack(run.encoder.decode(x)), y)
    return {**{k: marks[k].value for k in ("kid", "recall", "coverage")}, "pace": len(x) / took}


def shown(found: dict[str, float]) -> str:
    return f"{found['kid']:.1f}; {found['recall']:.3f}; {found['coverage']:.3f}; {found['pace']:.0f}"


def main() -> None:
    task = prepared("fashion", None, 0)
    own, out = task.folder / "flow", work_folder("student") / "run"
    guided = SETS["fashion"].settings["flow"]
    if not (out / "report.json").exists():
        argv = [
            "afresh",
            "distill",
            str(own / "run"),
            "--minutes",
            str(MINUTES),
            "--guidance",
            f"{guided['guidance']:g}",
        ]
        argv += ["--set", f"family.guidance_low={guided['guidance_low']}", "--out", str(out), "--force", "--no-measure"]
        argv += ["--set", f"family.guidance_high={guided['guidance_high']}"]
        finish(start(argv, 0, out.parent / "log"), out.parent / "log")
    judge, y = judge_of(task.loaded, task.set.samples), task.requests[0]
    teacher = drawn(Run.open(own / "run"), own / "wanted.npz", judge, y, **{**guided, "steps": 20})
    beside, rows = f"teacher, 20 steps: {shown(teacher)}", []
    for steps in STEPS:
        found = drawn(Run.open(out), own / "wanted.npz", judge, y, steps=steps)
        ratio, pace = found["kid"] / teacher["kid"], found["pace"] / teacher["pace"]
        goal = f"distance at most {AWAY:g} times, speed at least {FASTER:g} times" if steps == 4 else ""
        reached = steps != 4 or (ratio <= AWAY and pace >= FASTER)
        cores = "" if task.threads == 2 else f" of {task.threads} core"
        what = f"student, steps: {steps}, {MINUTES} min{cores}: KID x1000; recall; coverage; samples a second"
        ours = f"{shown(found)} ({pace:.1f} times the teacher's)"
        rows.append(Row("few steps, clothes", what, ours, beside, ratio, goal, reached, "1,000"))
        print(rows[-1], flush=True)
    save("student", rows)


if __name__ == "__main__":
    main()
