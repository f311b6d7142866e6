"""Drums and environmental sounds from 40 to 76 recordings, by `afresh train`: `python -m benchmarks small_sounds`.

Each set trains the flow for ten minutes with the planner's own choices, on its training recordings in class folders, of
which it holds some out to watch itself by; those that are held out here (two of each class of drums, one of each of the
scenes) no model sees. Every class is then asked for in proportion to its training recordings, and judged
(benchmarks/sound/small_judges.py). What was made and scored stays in AFRESH_BENCH (or ~/.cache/afresh-bench), so that a
run that was stopped goes on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import ours
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.common.processes import Answer
from benchmarks.common.results import Row, save, with_interval
from benchmarks.sound.judges import Mark, beside, marks_of, shown
from benchmarks.sound.small_judges import SETS, Judge, SmallSet, divide, read_samples, right

FAMILY, MINUTES, TIMES, SEED = "flow", 10.0, 4, 0  # TIMES: samples for every training recording
SETTINGS: dict[str, Any] = {}  # of sampling: as a run's own
# Stated before any run.
SHARE = 0.7  # of the times that the class of real held-out clips is heard
COPIES = 0.05  # near copies at most
ALONE = 8  # sounds drawn one by one
SOONEST = 1.0  # second of drawing for a second of sound
TITLES = {
    "class": "class heard by a classifier",
    "kad": "KAD x1000, log-mel",
    "near_copies": "near copies",
    "nearest_ratio": "nearest training clip, ratio to real clips' of other recordings",
}


@dataclass(frozen=True)
class Task:
    """One run of the benchmark on one set, divided in `clips`."""

    every: SmallSet
    minutes: float
    times: int
    seed: int
    threads: int
    root: Path
    clips: Path

    @property
    def folder(self) -> Path:
        return self.root / f"{self.minutes:g}min-seed{self.seed}" / self.every.name

    @property
    def labels(self) -> dict[str, str]:
        """The class of each sample by its name: `times` for every training recording."""
        out: dict[str, str] = {}
        for place in sorted((self.clips / "train").iterdir()):
            count = self.times * len(list(place.iterdir()))
            out |= {f"{place.name}_{i:03d}": place.name for i in range(count)}
        return out


@dataclass(frozen=True)
class Made:
    """A set's answer, its marks, and what is to be known of the judge."""

    answer: Answer
    marks: dict[str, Mark]
    judge: str


def contender(task: Task) -> Made:
    """Made and judged, as far as that was not done before for the same request."""
    folder = task.folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(task.clips / "train"), "--modality", "audio", "--family", FAMILY]
    command += ["--minutes", f"{task.minutes:g}", "--seed", str(task.seed)]
    seconds, labels = ours.train(folder / "run", command, task.threads), task.labels
    requests: list[dict[str, Any]] = [{"label": {"label": v}} for v in labels.values()]
    answer = ours.samples_of(
        folder, ours.Wanted(list(labels), requests, task.seed, SETTINGS, seconds, ALONE), task.threads
    )
    judge = Judge(task.every, task.clips)
    marks = marks_of(folder, lambda samples: judge.judge(read_samples(samples, labels)))
    made = Made(answer, marks, told(judge))
    print(f"-- {task.every.name}: {made.judge}\n{made.answer}\n{shown(made.marks)}", flush=True)
    return made


def told(judge: Judge) -> str:
    """The judge in words: which it is, and how it does on training recordings and on those held out."""
    (view, rule), best = next(iter(judge.choice.items()))
    held = right(judge.known(judge.held), judge.held)
    held_said = f"{held.value:.2f} ({held.low:.2f} to {held.high:.2f}) of {held.n} recordings that no model saw"
    return f"{rule} over {view}, right on {best.value:.2f} of {best.n} in cross-validation and {held_said}"


# --------------------------------------------------------------------------- what the table says


def goal_rows(task: Task, made: Made) -> list[Row]:
    """A row for every score, of which two and the time of drawing have a goal. ValueError without a floor."""
    a, m = made.answer, made.marks
    if m["class"].floor is None:
        raise ValueError("how often the class of real clips is heard is not known")
    cores = "1 core" if task.threads == 1 else f"{task.threads} cores"
    about = (
        f"{task.minutes:g} min of {cores}, seed {task.seed}; {FAMILY} ({a.parameters / 1e6:.2f}M, {a.steps:,} steps)"
    )
    least, copies = SHARE * m["class"].floor, m["near_copies"]
    goals = {
        "class": (f"at least {SHARE:g} of real clips' ({least:.3g})", m["class"].value >= least),
        "near_copies": (f"at most {COPIES:g}", copies.value <= COPIES),
    }
    title, rows = f"small sounds, {task.every.name}", []
    for name, mark in m.items():
        judge = f"; {made.judge}" if name == "class" else ""
        goal, reached = goals.get(name, ("stated", True))
        rows.append(
            Row(
                title,
                f"{TITLES[name]}, {about}{judge}",
                with_interval(mark, ".3g"),
                beside(mark),
                goal=goal,
                reached=reached,
                n=f"{mark.n:,}",
            )
        )
    what, at_once = (
        f"seconds to draw one second of sound, one clip at a time, {about}",
        f"{a.batch:.3g} for all at once",
    )
    rows.append(
        Row(title, what, f"{a.alone:.3g}", at_once, goal=f"under {SOONEST:g}", reached=a.alone < SOONEST, n=str(ALONE))
    )
    return rows


# --------------------------------------------------------------------------- running


def prepared(every: SmallSet, minutes: float, times: int, seed: int) -> Task:
    """Raises SystemExit without AFRESH_DATA."""
    root = work_folder("small_sounds")
    clips = divide(every, data_folder() / every.folder, root / every.name)
    return Task(every, minutes, times, seed, len(os.sched_getaffinity(0)), root, clips)


def main(*given: str) -> None:
    parser = parser_of("small_sounds", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="fewer, for a trial; the table is left as it is")
    parser.add_argument("--times", type=int, default=TIMES, help="samples for every training recording; the same")
    parser.add_argument("--only", choices=[s.name for s in SETS], help="one of the sets; the same")
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args(given)
    rows = []
    for every in (s for s in SETS if asked.only in (None, s.name)):
        task = prepared(every, asked.minutes, asked.times, asked.seed)
        rows += goal_rows(task, contender(task))
    for row in rows:
        print(row, flush=True)
    if asked.only is None and (asked.minutes, asked.times) == (MINUTES, TIMES):
        save("small_sounds", rows)


BENCHMARKS = (Benchmark("small_sounds", ("drums_sonicpi", "esc10_small"), 30, main),)
