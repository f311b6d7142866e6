"""Spoken digits by four families in equal minutes: `python -m benchmarks spoken`.

Each trains by `afresh train` with the planner's own choices, one after the other on all cores, on digit and speaker;
the transformer learns the codes of an autoencoder, whose minutes are taken from its own. A model watches itself on one
in 45 of its training clips (index 5), so that the held-out ones (0 to 4) are the judges' alone
(benchmarks/sound/spoken_judges.py). Every digit and speaker is then asked for ten times. What was made and scored stays
in AFRESH_BENCH (or ~/.cache/afresh-bench), so that a run that was stopped goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.common import ours
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.common.processes import Answer
from benchmarks.common.results import Row, save, with_interval
from benchmarks.images.sets import Goal
from benchmarks.sound.judges import Mark, beside, marks_of, shown
from benchmarks.sound.spoken_judges import NAMES, Judge, clips_in, divide, parts_of

MINUTES, EACH, SEED = 15.0, 10, 0
FAMILIES = ("flow", "gan", "vae", "transformer")
CODEC_SHARE = 0.5  # of the transformer's minutes, for the autoencoder whose codes it learns
WATCHED = 5  # the index of the training clips that a model is watched by
SETTINGS: dict[str, dict[str, Any]] = {}  # family -> how it is sampled, where not plainly
# Stated before any run; `best` is the family with the lowest KAD in log-mel features.
GOALS = (
    Goal("best", "digit", least=0.95),
    Goal("best", "whisper", least=0.85),
    Goal("best", "kad/log-mel", most=30),
    Goal("best", "kad/voice", most=30),
    Goal("best", "near_copies", most=0.02),
    Goal("best", "nearest_ratio", least=1.0),
)
ALONE = 8  # sounds drawn one by one
SOONEST = 1.0  # second of drawing for a second of sound
TITLES = {
    "digit": "digit heard by a classifier",
    "whisper": "digit heard by Whisper among ten",
    "speaker": "speaker heard by a classifier",
    "kad/log-mel": "KAD x1000, log-mel",
    "kad/voice": "KAD x1000, voice",
    "near_copies": "near copies",
    "nearest_ratio": "nearest training clip, ratio to held-out clips'",
}


@dataclass(frozen=True)
class Task:
    """One run of the benchmark. `watch`: "train" or "test", the clips that models are watched by (and by whose loss
    training may end and the weights be chosen)."""

    minutes: float
    each: int
    seed: int
    watch: str
    threads: int
    root: Path
    clips: Path

    @property
    def folder(self) -> Path:
        return self.root / f"{self.minutes:g}min-seed{self.seed}{'' if self.watch == 'train' else '-watch-test'}"

    @cached_property
    def data(self) -> Path:
        """The folder that models learn from, with a split of its own."""
        return self.clips if self.watch == "test" else watching_train(self.clips, self.root / "learn")

    def wanted(self, family: str, seconds: float) -> ours.Wanted:
        """Each digit and speaker `each` times."""
        speakers = sorted({found[1] for f in (self.clips / "train").iterdir() if (found := parts_of(f.name))})
        kinds = [{"digit": d, "speaker": s} for d in "0123456789" for s in speakers for _ in range(self.each)]
        names = [f"{k['digit']}_{k['speaker']}_{i % self.each}" for i, k in enumerate(kinds)]
        requests = [{"label": k} for k in kinds]
        return ours.Wanted(names, requests, self.seed, SETTINGS.get(family, {}), seconds, ALONE)


@dataclass(frozen=True)
class Made:
    """A family's answer and its marks."""

    name: str
    answer: Answer
    marks: dict[str, Mark]


def watching_train(clips: Path, folder: Path) -> Path:
    """The training clips divided again, into train and validation; made once."""
    if folder.is_dir():
        return folder
    aside = folder.with_name(f"{folder.name}.part")
    for part in ("train", "validation"):
        (aside / part).mkdir(parents=True, exist_ok=True)
    for file in (clips / "train").iterdir():
        found = parts_of(file.name)
        part = "validation" if found is not None and found[2] == WATCHED else "train"
        shutil.copyfile(file, aside / part / file.name)
    aside.replace(folder)
    return folder


# --------------------------------------------------------------------------- making


def train(task: Task, run: Path, arguments: Sequence[str], minutes: float) -> float:
    """Train by the command, or go on where a run was stopped; the seconds of the part that ended it."""
    command = [str(task.data), "--modality", "audio", "--data", f"names={NAMES}", *arguments]
    return ours.train(run, [*command, "--minutes", f"{minutes:g}", "--seed", str(task.seed)], task.threads)


def make(task: Task, family: str, folder: Path) -> float:
    """The seconds of a run of the family, and of a codec before it where one is needed."""
    spent, minutes, arguments = 0.0, task.minutes, ["--family", family]
    if family == "transformer":
        codec = folder / "codec"
        kind = ["--family", "autoencoder", "--set", "family.bottleneck=fsq"]
        spent, minutes = train(task, codec, kind, CODEC_SHARE * minutes), (1 - CODEC_SHARE) * minutes
        arguments += ["--codec", str(codec)]
    return spent + train(task, folder / "run", arguments, minutes)


def contender(task: Task, family: str, judge: Judge) -> Made:
    """Made and judged, as far as that was not done before for the same request."""
    folder = task.folder / family
    folder.mkdir(parents=True, exist_ok=True)
    answer = ours.samples_of(folder, task.wanted(family, make(task, family, folder)), task.threads)
    made = Made(family, answer, marks_of(folder, lambda samples: judge.judge(clips_in(samples))))
    print(f"-- {family}: {made.answer}\n{shown(made.marks)}", flush=True)
    return made


# --------------------------------------------------------------------------- what the table says


def about(task: Task, made: Made) -> str:
    a = made.answer
    cores = "1 core" if task.threads == 1 else f"{task.threads} cores"
    size = f"{a.parameters / 1e6:.2f}M, {a.steps:,} steps"
    return f"{task.minutes:g} min of {cores}, seed {task.seed}; {made.name} ({size}, {a.rate:,.0f} clips/s)"


def goal_rows(task: Task, made: Mapping[str, Made]) -> list[Row]:
    """A row for every goal, of the family with the lowest KAD in log-mel features."""
    best = min(made.values(), key=lambda m: m.marks["kad/log-mel"].value)
    title, rows = f"spoken digits, {best.name}", []
    for goal in GOALS:
        m = best.marks[goal.score]
        what = f"{TITLES[goal.score]}, {about(task, best)}"
        reached = goal.reached(m.value, 0.0)
        rows.append(Row(title, what, with_interval(m, ".3g"), beside(m), goal=str(goal), reached=reached, n=f"{m.n:,}"))
    a = best.answer
    what = f"seconds to draw one second of sound, one clip at a time, {about(task, best)}"
    all_at_once = f"{a.batch:.3g} for all clips at once"
    rows.append(
        Row(
            title,
            what,
            f"{a.alone:.3g}",
            all_at_once,
            goal=f"under {SOONEST:g}",
            reached=a.alone < SOONEST,
            n=str(ALONE),
        )
    )
    return rows


def contender_rows(task: Task, made: Mapping[str, Made]) -> list[Row]:
    """What every family scores, goals or none."""
    rows = []
    for m in made.values():
        scores = [f"{TITLES[k]} {mark.value:.3g}" for k, mark in m.marks.items()]
        scores.append(f"{m.answer.alone:.3g} s for a second of sound")
        floors = [f"{TITLES[k]} {mark.floor:.3g}" for k, mark in m.marks.items() if mark.floor is not None]
        title, n = f"spoken digits, {m.name}", f"{m.marks['digit'].n:,}"
        rows.append(Row(title, about(task, m), "; ".join(scores), f"real clips: {'; '.join(floors)}", n=n))
    return rows


def failed_rows(task: Task, failed: Mapping[str, str]) -> list[Row]:
    """What became of a family that has no model: the last line that its command printed."""
    rows = []
    for family, error in failed.items():
        why = " ".join(error.strip().splitlines()[-1:]).replace("|", "/").replace(str(task.root), "")
        what = f"{task.minutes:g} min, seed {task.seed}"
        rows.append(Row(f"spoken digits, {family}", what, f"no model: {why}", reached=False, n="0"))
    return rows


# --------------------------------------------------------------------------- running


def prepared(minutes: float, each: int, seed: int, watch: str) -> Task:
    """Raises SystemExit without AFRESH_DATA."""
    root = work_folder("spoken")
    clips = divide(data_folder("spoken_digits_fsdd"), root / "clips")
    return Task(minutes, each, seed, watch, len(os.sched_getaffinity(0)), root, clips)


def run(task: Task, only: Sequence[str] = ()) -> list[Row]:
    """Every family (or some), then the rows of the table, which are kept when the whole was run at full length."""
    judge = Judge(task.clips, task.each, task.root / "judge")
    made, failed = {}, {}
    for family in (f for f in FAMILIES if not only or f in only):
        try:
            made[family] = contender(task, family, judge)
        except RuntimeError as error:  # such as a codec that is not good enough: the others go on
            failed[family] = str(error)
            print(f"-- {family}: {error}", flush=True)
    rows = [*(goal_rows(task, made) if made else []), *contender_rows(task, made), *failed_rows(task, failed)]
    for row in rows:
        print(row, flush=True)
    if not only and (task.minutes, task.each, task.watch) == (MINUTES, EACH, "train"):
        save("spoken", rows)
    return rows


def main(*given: str) -> None:
    parser = parser_of("spoken", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="fewer, for a trial; the table is left as it is")
    parser.add_argument("--each", type=int, default=EACH, help="samples of each digit and speaker; the same")
    parser.add_argument("--only", default="", help="families, with commas: flow,gan")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--watch",
        choices=("train", "test"),
        default="train",
        help="clips that training is watched by; test: the judges'",
    )
    asked = parser.parse_args(given)
    only = tuple(filter(None, asked.only.split(",")))
    unknown = set(only) - set(FAMILIES)
    if unknown:
        parser.error(f"there is no family {', '.join(sorted(unknown))} here; choose from {', '.join(FAMILIES)}")
    run(prepared(asked.minutes, asked.each, asked.seed, asked.watch), only)


BENCHMARKS = (Benchmark("spoken", ("spoken_digits_fsdd",), 70, main),)
