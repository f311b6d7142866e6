"""Pictures by every family beside its peers, in one run and equal minutes: `python -m benchmarks.pictures fashion`.

Each contender trains in a process of its own, one after the other on all cores, and draws the same requests; ours by
`afresh train` with the planner's own choices, whose budget pays for everything, a peer's for training alone. Ours
watches itself on one in fifty of its training pictures, so that the held-out ones are the judge's alone
(benchmarks/judge_pictures.py). What was made and scored stays in AFRESH_BENCH
(or ~/.cache/afresh-bench), so that a run that was stopped goes on. Goals are in benchmarks/picture_sets.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.judge_pictures import Judge, Mark, judge_of, shown, work_folder
from benchmarks.picture_peer import Answer, Ask
from benchmarks.picture_sets import SETS, DataSet, Labels, Loaded, write
from benchmarks.pinned import ROOT
from benchmarks.table import Row, save

PEERS = {"diffusers": "", "pythae_mlp": "mlp", "pythae_conv": "conv", "dcgan": ""}  # peer -> the variant of its module
VIEWS = ("kid", "kid/domain", "kid/random")
KEPT = (*VIEWS, "recall", "coverage", "two_sample/pixels", "conditional_accuracy", "retrieval")


@dataclass(frozen=True)
class Task:
    """One run of a benchmark: what all contenders are given."""

    set: DataSet
    loaded: Loaded
    minutes: float
    seed: int
    threads: int
    folder: Path

    @property
    def requests(self) -> tuple[Labels, tuple[str, ...]]:
        """What every contender is asked for: classes as they occur in training, or each held-out caption in turn."""
        n, captions = self.set.samples, self.loaded.held.captions
        y = np.random.default_rng(self.seed).choice(self.loaded.train.y, n)
        return y.astype(np.int64), tuple(captions[i % len(captions)] for i in range(n)) if captions else ()


@dataclass(frozen=True)
class Made:
    """A contender's answer and its marks."""

    name: str
    answer: Answer
    marks: dict[str, Mark]


# --------------------------------------------------------------------------- making


def write_json(path: Path, value: Any) -> None:
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(value, indent=1) + "\n")
    aside.replace(path)


def finish(command: Sequence[str], folder: Path, threads: int) -> None:
    """Run `python -m COMMAND` to its end; what it prints goes to the folder's log. Raises RuntimeError on failure."""
    log = folder / "log"
    with log.open("ab") as out:
        plain = os.environ | {"OMP_NUM_THREADS": str(threads)}
        code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=plain, stdout=out, stderr=out).returncode
    if code:
        raise RuntimeError(f"exit code {code} of {' '.join(command)}:\n{log.read_text(errors='replace')[-2000:]}")


def make_peer(task: Task, name: str, folder: Path) -> None:
    np.savez(folder / "data.npz", x=task.loaded.train.x, y=task.loaded.train.y)
    files = str(folder / "data.npz"), str(folder / "wanted.npz")
    ask = Ask(*files, len(task.loaded.classes), 60 * task.minutes, task.threads, task.seed, PEERS[name])
    write_json(folder / "ask.json", asdict(ask))
    finish([f"benchmarks.peer_{name.partition('_')[0]}", str(folder)], folder, task.threads)
    (folder / "data.npz").unlink()


def make_ours(task: Task, name: str, folder: Path) -> None:
    """Train by the command, or go on where a run was stopped, then draw what is asked for."""
    run, done = folder / "run", folder / "trained"
    if not done.exists():
        train, watched = write(task.loaded.train, folder)
        if (run / "checkpoints").is_dir():
            command = ["--resume", str(run)]
        else:
            command = [str(train), "--modality", "image", "--family", name, "--validation", str(watched), "--force"]
            command += ["--minutes", str(task.minutes), "--seed", str(task.seed), "--out", str(run)]
            if task.loaded.train.captions:  # stated, since the default depends on what is in the cache of the hub
                command += ["--data", "captions=minilm"]
        begun = time.perf_counter()
        finish(["afresh", "train", *command, "--no-measure"], folder, task.threads)
        write_json(done, {"seconds": time.perf_counter() - begun})
    write_json(folder / "settings.json", task.set.settings.get(name, {}))
    finish(["benchmarks.picture_ours", str(folder), str(task.seed)], folder, task.threads)


def contender(task: Task, name: str, judge: Judge) -> Made:
    """Made and judged, as far as that was not done before."""
    folder = task.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "samples.npz").exists() or not (folder / "answer.json").exists():
        y, captions = task.requests
        np.savez(
            folder / "wanted.npz",
            y=y,
            classes=np.arange(len(task.loaded.classes)).astype(str),
            captions=np.array(captions),
        )
        (make_peer if name in PEERS else make_ours)(task, name, folder)
    scores = folder / "scores.json"
    if not scores.exists():
        with np.load(folder / "samples.npz") as z:
            marks = judge.judge(z["x"], z["y"], task.requests[1])
        write_json(scores, {k: asdict(m) for k, m in marks.items()})
    marks = {k: Mark(**m) for k, m in json.loads(scores.read_text()).items()}
    made = Made(name, Answer(**json.loads((folder / "answer.json").read_text())), marks)
    print(f"-- {name}: {made.answer}\n{shown(marks)}", flush=True)
    return made


# --------------------------------------------------------------------------- what the table says


def budget(task: Task) -> str:
    """The minutes, and of how many cores where it was not two."""
    cores = "" if task.threads == 2 else f" of {task.threads} core" + "s" * (task.threads > 1)
    return f"{task.minutes:g} min{cores}"


def about(made: Made) -> str:
    a = made.answer
    size = f"{a.parameters / 1e6:.2f}M, {a.steps:,} steps in {a.seconds:.0f} s"
    return f"{made.name} ({size}, {a.rate:,.0f} pictures/s, samples {a.drawn:,.0f}/s)"


def beside(m: Mark) -> str:
    return f"floor {m.floor:.3g}, copies {m.copies:.3g}, pixel Gaussian {m.gaussian:.3g}"


def goal_rows(task: Task, made: Mapping[str, Made]) -> list[Row]:
    """A row for every goal of a model that was run."""
    ours = [m for m in made.values() if m.name in task.set.families]
    rows = []
    for goal in task.set.goals:
        if not ours or (goal.model != "best" and goal.model not in made):
            continue
        model = min(ours, key=lambda m: m.marks["kid"].value) if goal.model == "best" else made[goal.model]
        m = model.marks[goal.score]
        what = f"{named(goal.score)}, {budget(task)}; {about(model)}"
        between = "" if m.low is None or m.high is None else f" ({m.low:.3g} to {m.high:.3g})"
        reached = goal.reached(m.value, m.floor)
        title = f"{task.set.name}, {model.name}"
        rows.append(Row(title, what, f"{m.value:.3g}{between}", beside(m), None, str(goal), reached, f"{m.n:,}"))
    return rows


def rival_rows(task: Task, made: Mapping[str, Made]) -> list[Row]:
    """Each family against the best of its peers by KID, in three views: EfficientNet, domain encoder, random net."""
    rows = []
    for family, kind in task.set.rivals.items():
        theirs = [m for m in made.values() if m.name in PEERS and m.name.startswith(kind)]
        if family not in made or not theirs:
            continue
        best = min(theirs, key=lambda m: m.marks["kid"].value)
        for score in VIEWS:
            own, other = made[family].marks[score], best.marks[score]
            ratio = own.value / other.value
            what = f"{named(score)}, {budget(task)}; {about(made[family])}"
            against = f"{other.value:.0f}: {about(best)}; floor {own.floor:.3g}, copies {own.copies:.3g}"
            title = f"{task.set.name}, {family}"
            rows.append(Row(title, what, f"{own.value:.0f}", against, ratio, "at most 0.5", ratio <= 0.5, f"{own.n:,}"))
    return rows


def pace_rows(task: Task, made: Mapping[str, Made]) -> list[Row]:
    """Pictures a second, learnt and drawn, of the families of which it is asked."""
    rows = []
    for family, (learnt, drawn) in task.set.paces.items():
        if family in made:
            a = made[family].answer
            about_it = f"{a.parameters / 1e6:.2f}M, {task.threads} cores"
            for what, value, least in (("learnt", a.rate, learnt), ("drawn, as judged", a.drawn, drawn)):
                said = f"pictures a second {what}; {about_it}"
                title, goal = f"{task.set.name}, {family}", f"at least {least:g}"
                rows.append(Row(title, said, f"{value:.0f}", "", None, goal, value >= least, "1"))
    return rows


def named(score: str) -> str:
    names = {
        "kid": "KID x1000",
        "kid/domain": "KID x1000 in the domain encoder",
        "kid/random": "KID x1000 in a random net",
        "retrieval": "asked caption among 32",
    }
    return names.get(score, score.replace("_", " "))


def contender_rows(task: Task, made: Mapping[str, Made]) -> list[Row]:
    """What every contender scores, goals or none."""
    rows = []
    for m in made.values():
        marks = [f"{named(k)} {m.marks[k].value:.3g}" for k in (*KEPT, "near_copies") if k in m.marks]
        floors = [f"{m.marks[k].floor:.3g}" for k in (*KEPT, "near_copies") if k in m.marks]
        title, n = f"{task.set.name}, {m.name}", f"{m.marks['kid'].n:,}"
        rows.append(Row(title, about(m), "; ".join(marks), "floors " + ", ".join(floors), None, "stated", True, n))
    return rows


# --------------------------------------------------------------------------- running


def prepared(name: str, minutes: float | None, seed: int) -> Task:
    chosen = SETS[name]
    given = chosen.minutes if minutes is None else minutes
    folder = work_folder(name) / f"{given:g}min-seed{seed}"
    return Task(chosen, chosen.loaded(), given, seed, len(os.sched_getaffinity(0)), folder)


def run(name: str, minutes: float | None = None, only: Sequence[str] = (), seed: int = 0) -> list[Row]:
    """Every contender (or some), then the rows of the table, which are kept when the whole was run at full length."""
    task = prepared(name, minutes, seed)
    judge = judge_of(task.loaded, task.set.samples)
    wanted = [c for c in (*task.set.families, *task.set.peers) if not only or c in only]
    made = {c: contender(task, c, judge) for c in wanted}
    rows = [*goal_rows(task, made), *rival_rows(task, made), *pace_rows(task, made), *contender_rows(task, made)]
    for row in rows:
        print(row, flush=True)
    if not only and task.minutes == task.set.minutes:
        save(name, rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=list(SETS))
    parser.add_argument("--minutes", type=float, help="fewer, for a trial; the table is left as it is")
    parser.add_argument("--only", default="", help="contenders, with commas: flow,dcgan")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    only = tuple(filter(None, asked.only.split(",")))
    unknown = set(only) - {*SETS[asked.name].families, *SETS[asked.name].peers}
    if unknown:
        parser.error(f"{asked.name} has no contender {', '.join(sorted(unknown))}")
    run(asked.name, asked.minutes, only, asked.seed)


if __name__ == "__main__":
    main()
