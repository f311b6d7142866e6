"""Pictures by every family beside its peers, in one run and equal minutes: `python -m benchmarks fashion`.

Each contender trains in a process of its own, one after the other on all cores, and draws the same requests; ours by
`afresh train` with the planner's own choices, whose budget pays for everything, a peer's for training alone. Ours
watches itself on one in fifty of its training pictures, so that the held-out ones are the judge's alone
(benchmarks/images/judges.py). What was made and scored stays in AFRESH_BENCH
(or ~/.cache/afresh-bench), so that a run that was stopped goes on. Goals are in benchmarks/images/sets.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import ours
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder, write_json
from benchmarks.common.processes import Answer, ask
from benchmarks.common.results import Row, save, with_interval
from benchmarks.images.judges import Judge, Mark, judge_of, shown
from benchmarks.images.peers.protocol import Ask, keep
from benchmarks.images.sets import SETS, DataSet, Labels, Loaded, write

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
    def classes(self) -> Labels:
        """The class that each contender is asked for, as often as classes occur in training."""
        drawn = np.random.default_rng(self.seed).choice(self.loaded.train.y, self.set.samples)
        return drawn.astype(np.int64)

    @property
    def captions(self) -> tuple[str, ...]:
        """Each held-out caption in turn; none where there are none."""
        every = self.loaded.held.captions
        return tuple(every[i % len(every)] for i in range(self.set.samples)) if every else ()

    @property
    def requests(self) -> list[dict[str, str]]:
        """What a run of ours is asked for: a caption, a class or nothing, for each sample."""
        if self.captions:
            return [{"caption": c} for c in self.captions]
        return [{"label": str(c)} if self.loaded.classes else {} for c in self.classes]


@dataclass(frozen=True)
class Made:
    """A contender's answer and its marks."""

    name: str
    answer: Answer
    marks: dict[str, Mark]


# --------------------------------------------------------------------------- making


def make_peer(task: Task, name: str, folder: Path) -> None:
    np.savez(folder / "data.npz", x=task.loaded.train.x, y=task.loaded.train.y)
    np.savez(folder / "wanted.npz", y=task.classes)
    files = str(folder / "data.npz"), str(folder / "wanted.npz")
    request = Ask(*files, len(task.loaded.classes), 60 * task.minutes, task.threads, task.seed, PEERS[name])
    ask(f"benchmarks.images.peers.{name.partition('_')[0]}", request, folder, threads=task.threads)
    (folder / "data.npz").unlink()


def make_ours(task: Task, name: str, folder: Path) -> None:
    """Train by the command, or go on where a run was stopped, then draw what is asked for."""
    train, watched = write(task.loaded.train, folder)
    command = [str(train), "--modality", "image", "--family", name, "--validation", str(watched)]
    command += ["--minutes", str(task.minutes), "--seed", str(task.seed)]
    if task.loaded.train.captions:  # stated, since the default depends on what is in the cache of the hub
        command += ["--data", "captions=minilm"]
    seconds = ours.train(folder / "run", command, task.threads)
    names = [f"{i:05}" for i in range(task.set.samples)]
    settings = task.set.settings.get(name, {})
    ours.samples_of(folder, ours.Wanted(names, task.requests, task.seed, settings, seconds), task.threads)
    channels = task.loaded.train.x.shape[3]
    drawn = [np.asarray(Image.open(folder / "samples" / f"{n}.png")).reshape(-1) for n in names]
    keep(folder, np.stack(drawn).reshape(-1, *task.loaded.train.x.shape[1:3], channels), task.classes)


def contender(task: Task, name: str, judge: Judge) -> Made:
    """Made and judged, as far as that was not done before."""
    folder = task.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "samples.npz").exists() or not (folder / "answer.json").exists():
        (make_peer if name in PEERS else make_ours)(task, name, folder)
    scores = folder / "scores.json"
    if not scores.exists():
        with np.load(folder / "samples.npz") as z:
            marks = judge.judge(z["x"], z["y"], task.captions)
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
    return f"{made.name} ({size}, {a.rate:,.0f} pictures/s, samples {1 / a.batch:,.0f}/s)"


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
        reached = goal.reached(m.value, m.floor)
        title = f"{task.set.name}, {model.name}"
        rows.append(Row(title, what, with_interval(m, ".3g"), beside(m), goal=str(goal), reached=reached, n=f"{m.n:,}"))
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
            for what, value, least in (("learnt", a.rate, learnt), ("drawn, as judged", 1 / a.batch, drawn)):
                said = f"pictures a second {what}; {about_it}"
                title, goal = f"{task.set.name}, {family}", f"at least {least:g}"
                rows.append(Row(title, said, f"{value:.0f}", goal=goal, reached=value >= least, n="1"))
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
        rows.append(Row(title, about(m), "; ".join(marks), "floors " + ", ".join(floors), n=n))
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


def main(name: str, *given: str) -> None:
    parser = parser_of(name, __doc__)
    parser.add_argument("--minutes", type=float, help="fewer, for a trial; the table is left as it is")
    parser.add_argument("--only", default="", help="contenders, with commas: flow,dcgan")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(given)
    only = tuple(filter(None, asked.only.split(",")))
    if unknown := set(only) - {*SETS[name].families, *SETS[name].peers}:
        parser.error(f"{name} has no contender {', '.join(sorted(unknown))}")
    run(name, asked.minutes, only, asked.seed)


BENCHMARKS = (
    Benchmark("fashion", ("fashion_mnist_small",), 85, partial(main, "fashion")),
    Benchmark("cifar", ("cifar10_small",), 40, partial(main, "cifar")),
    Benchmark("faces", ("faces_orl64",), 25, partial(main, "faces")),
    Benchmark("emoji", ("emoji_twitter64",), 40, partial(main, "emoji")),
)
