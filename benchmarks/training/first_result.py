"""What a person's own folder gives in 1, 5 and 20 minutes: `python -m benchmarks first_result --folders photos200`.

On each of 12 folders (benchmarks/training/folders.py) the plan's choice, `afresh train FOLDER --minutes M`, is held
against alternatives given by hand that train for as long, by a score that was fixed beforehand
(benchmarks/training/judges.py). `whole` is the same plan with the measuring and the report that a user gets: its
seconds and its verdict count. Every finished training is a line of first_result/results.jsonl in AFRESH_BENCH (or
~/.cache/afresh-bench) and is not run twice, so that the grid, which takes days and is no part of `make bench`, can be
run in parts; `--table` writes what there is into the documentation.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from threading import Timer

from afresh.engine.training.budget import processor
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import ROOT, work_folder
from benchmarks.common.results import Row, save
from benchmarks.training.folders import FOLDERS, Folder
from benchmarks.training.judges import Judged

PLAN, WHOLE, BASE = "plan", "whole", "base"  # choices that are no alternatives to the plan
# Stated before any run.
NEAR, WORST, CELLS = 1.10, 2.0, 0.9  # times the best alternative's score; share of cells that must be that near
RECOGNISED = 0.9  # of photographs after one minute
PUNCTUAL = 1.10  # times the minutes, report included
FIXED = {PLAN: ("--no-measure",), WHOLE: (), BASE: ("--base", "auto", "--no-measure")}
MINUTES, SEEDS = (1.0, 5.0, 20.0), 3
BUSY = "import os\nos.sched_setaffinity(0, {%d})\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


# --------------------------------------------------------------------------- results, and their rows


@dataclass(frozen=True)
class Key:
    """One training. `choice`: plan, whole, base, or the name of an alternative; `half`: on half of the machine from a
    third of the minutes on; `machine`: the processor and the number of cores."""

    folder: str
    minutes: float
    seed: int
    choice: str
    half: bool
    machine: str

    @property
    def name(self) -> str:
        return f"{self.folder}-{self.minutes:g}min-seed{self.seed}-{self.choice}{'-half' if self.half else ''}"


@dataclass(frozen=True)
class Result:
    """What became of a training: the seconds of the whole command, and its score, or why there is none."""

    key: Key
    seconds: float
    error: str = ""
    judged: Judged | None = None
    model: str = ""  # family, size and steps
    verdict: str = ""  # of the report, where there is one


def append(path: Path, result: Result) -> None:
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(result)) + "\n")
        out.flush()
        os.fsync(out.fileno())


def load(path: Path) -> dict[Key, Result]:
    """Results by key, the last line of each; a line that was cut off is left out."""
    found = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        key, judged = Key(**fields.pop("key")), fields.pop("judged")
        found[key] = Result(key, **fields, judged=None if judged is None else Judged(**judged))
    return found


def rows(results: Iterable[Result]) -> list[Row]:
    """The summary of the cells, how punctual whole commands are, what is recognised after a minute, and the cells."""
    groups: dict[tuple[str, str, float], list[Result]] = {}
    for r in sorted(results, key=lambda r: (list(FOLDERS).index(r.key.folder), r.key.minutes, r.key.seed)):
        groups.setdefault((r.key.machine, r.key.folder, r.key.minutes), []).append(r)
    cells = [row for group in groups.values() if (row := cell([r for r in group if not r.key.half])) is not None]
    return [*summary(cells), *(row for group in groups.values() for row in (*punctual(group), *seen(group))), *cells]


def cell(results: Sequence[Result]) -> Row | None:
    """The plan beside the best alternative on one folder for some minutes, over the seeds for which the plan was
    trained; None if there is nothing to compare. A plan that failed is infinitely bad."""
    plans = [r for r in results if r.key.choice == PLAN]
    scores = {c: score(results, c, [r.key.seed for r in plans]) for c in dict.fromkeys(r.key.choice for r in results)}
    own, whole, base = (scores.pop(c, math.inf) for c in (PLAN, WHOLE, BASE))
    others = sorted((v, c) for c, v in scores.items() if v < math.inf)
    if not plans or not others:
        return None
    said = [*dict.fromkeys(r.model or r.error for r in plans), f"{mean(r.seconds for r in plans):.0f} s"]
    said += [f"class recognised {mean(shares):.2f}"] if (shares := recognised(plans)) else []
    said += [f"verdict {r.verdict}" for r in results if r.verdict]
    beside = ", ".join(f"{v:.3g} ({c})" for v, c in others)
    beside += "".join(f"; {c} {v:.3g}, not counted" for c, v in ((WHOLE, whole), (BASE, base)) if v < math.inf)
    what, ratio = f"{FOLDERS[plans[0].key.folder].judge.title}, {plans[0].key.minutes:g} min", own / others[0][0]
    goal = f"at most {NEAR:g} times the best of {len(others)}"
    ours, shown = ("no model", None) if own == math.inf else (f"{own:.3g}", ratio)
    return row(plans, f"{what}; {'; '.join(said)}", ours, beside, shown, goal, ratio <= NEAR)


def score(results: Sequence[Result], choice: str, seeds: Sequence[int]) -> float:
    """The mean score of a choice over seeds, none below its floor: what cannot be told from real items is as good as
    another. Infinite if one of the seeds has no score."""
    found = {r.key.seed: r.judged for r in results if r.key.choice == choice and r.judged is not None}
    if not seeds or not set(seeds) <= set(found):
        return math.inf
    return mean(max(found[s].score, found[s].floor) for s in seeds)


def summary(cells: Sequence[Row]) -> list[Row]:
    if not cells:
        return []
    near, worst = mean(c.reached for c in cells), max(math.inf if c.ratio is None else c.ratio for c in cells)
    title, n = "first result", f"{len(cells)} cells"
    share, most = f"share of cells within {NEAR:g} times the best alternative", "worst cell, times the best alternative"
    return [
        Row(title, share, f"{near:.2f}", goal=f"at least {CELLS:g}", reached=near >= CELLS, n=n),
        Row(title, most, f"{worst:.2f}", goal=f"at most {WORST:g}", reached=worst <= WORST, n=n),
    ]


def punctual(group: Sequence[Result]) -> list[Row]:
    """The seconds of the whole command, report included; with half of the machine taken away, too."""
    out = []
    for half in (False, True):
        if whole := [r for r in group if r.key.choice == WHOLE and r.key.half == half]:
            asked, spent = 60 * whole[0].key.minutes, mean(r.seconds for r in whole)
            reached = spent <= PUNCTUAL * asked and not any(r.error for r in whole)
            what = f"seconds of the command, report included, {whole[0].key.minutes:g} min"
            what += ", half of the machine taken away" if half else ""
            beside, goal = f"{asked:g} (asked for)", f"at most {PUNCTUAL:g}"
            out.append(row(whole, what, f"{spent:.0f}", beside, spent / asked, goal, reached))
    return out


def seen(group: Sequence[Result]) -> list[Row]:
    """Whether the classes of 200 photographs are recognised after a minute."""
    plans = [r for r in group if (r.key.folder, r.key.minutes, r.key.choice) == ("photos200", 1, PLAN)]
    if not (shares := recognised(plans)):
        return []
    share, goal = mean(shares), f"at least {RECOGNISED:g}"
    return [row(plans, "class recognised, 1 min", f"{share:.2f}", "", None, goal, share >= RECOGNISED)]


def recognised(results: Iterable[Result]) -> list[float]:
    return [r.judged.recognised for r in results if r.judged is not None and r.judged.recognised is not None]


def row(of: Sequence[Result], what: str, ours: str, beside: str, ratio: float | None, goal: str, reached: bool) -> Row:
    cores = of[0].key.machine.rpartition(", ")[2].removesuffix(" cores")
    n = f"{len(of)} seed" + "s" * (len(of) != 1) + f", {cores} core" + "s" * (cores != "1")
    return Row(f"first result, {of[0].key.folder}", what, ours, beside, ratio, goal, reached, n)


# --------------------------------------------------------------------------- training


def machine() -> str:
    return f"{processor()}, {len(os.sched_getaffinity(0))} cores"


@contextmanager
def half_taken(after: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """After so many seconds, a busy process on each of half of the cores. Gives the list that they will be in."""
    cores, busy = sorted(os.sched_getaffinity(0)), list[subprocess.Popen[bytes]]()

    def take() -> None:
        for core in cores[: max(1, len(cores) // 2)]:
            busy.append(subprocess.Popen([sys.executable, "-c", BUSY % core]))

    timer = Timer(after, take)
    timer.start()
    try:
        yield busy
    finally:
        timer.cancel()
        timer.join()
        for process in busy:
            process.kill()
            process.wait()


def command(arguments: Sequence[str], log: Path, limit: float) -> tuple[float, str]:
    """Run `afresh ARGUMENTS` as a user would, for at most `limit` seconds. Returns its seconds and the last line that
    it printed if it failed, else an empty text."""
    begun = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "afresh", *arguments], cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = time.perf_counter() - begun
    if code is None:
        return seconds, f"stopped after {seconds:.0f} s"
    said = log.read_text("utf-8", "replace").strip().splitlines()
    return seconds, "" if code == 0 else f"exit code {code}: {said[-1] if said else ''}"


def trained(key: Key, folder: Folder, root: Path) -> Result:
    """Train and judge."""
    data, runs = folder.made(root / "data"), root / "runs"
    runs.mkdir(exist_ok=True)
    run, seconds = runs / key.name, 60 * key.minutes
    chosen = FIXED[key.choice] if key.choice in FIXED else (*folder.choices[key.choice], "--no-measure")
    arguments = ["train", str(data / "train"), "--minutes", f"{key.minutes:g}", "--seed", str(key.seed)]
    arguments += ["--out", str(run), "--force", *chosen]
    log, limit = runs / f"{key.name}.log", 1.6 * seconds + 120
    if key.half:
        with half_taken(seconds / 3):
            spent, error = command(arguments, log, limit)
    else:
        spent, error = command(arguments, log, limit)
    if error:
        return Result(key, spent, error)
    try:
        return judged(key, spent, folder, data, run)
    finally:
        if key.choice not in FIXED:
            shutil.rmtree(run, ignore_errors=True)  # hundreds of them would fill a disk


def judged(key: Key, seconds: float, folder: Folder, data: Path, run: Path) -> Result:
    from afresh.api import Model
    from afresh.core import UserError
    from afresh.runs.about import AboutRun
    from afresh.runs.run import Run

    opened = Run.open(run)
    model = f"{opened.record.family}, {opened.record.parameters / 1e6:.2f}M, {AboutRun(opened).steps:,} steps"
    verdict = read_verdict(run)
    try:
        found = folder.judge.judge(data, Model(opened))
        if not math.isfinite(found.score):
            raise ValueError(f"the score is {found.score}")
    except (UserError, ValueError) as error:
        return Result(key, seconds, f"cannot be judged: {error}", None, model, verdict)
    return Result(key, seconds, "", found, model, verdict)


def read_verdict(run: Path) -> str:
    """The verdict's word in the run's report; empty without one."""
    try:
        return str(json.loads((run / "report.json").read_bytes())["sections"][0]["verdict"]["word"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


# --------------------------------------------------------------------------- running


def numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def main(*given: str) -> None:
    parser = parser_of("first_result", __doc__)
    parser.add_argument("--folders", default=",".join(FOLDERS), help="with commas; all by default")
    parser.add_argument("--minutes", type=numbers, default=MINUTES, help="with commas; 1,5,20 by default")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--only", default="", help="choices, with commas: plan,whole,base,flow-64")
    parser.add_argument("--half", action="store_true", help="take half of the machine away from a third on (whole)")
    parser.add_argument("--again", action="store_true", help="train what was trained before anew")
    parser.add_argument("--table", action="store_true", help="train nothing; write the table from what was trained")
    asked = parser.parse_args(given)
    root, here = work_folder("first_result"), machine()
    results = root / "results.jsonl"
    if asked.table:
        save("first_result", rows([r for r in load(results).values() if r.key.machine.startswith(processor())]))
        return
    folders = [f for f in asked.folders.split(",") if f]
    known = {*FIXED, *(c for f in FOLDERS.values() for c in f.choices)}
    only = tuple(c for c in asked.only.split(",") if c) or ((WHOLE,) if asked.half else ())
    for kind, names, allowed in (("folder", folders, FOLDERS), ("choice", only, known)):
        if unknown := sorted(set(names) - set(allowed)):
            parser.error(f"there is no {kind} {', '.join(unknown)}; choose from {', '.join(sorted(allowed))}")
    for minutes in sorted(asked.minutes):
        for folder in (FOLDERS[f] for f in folders):
            choices = [c for c in only or (PLAN, WHOLE, *folder.choices) if c in FIXED or c in folder.choices]
            for key in (Key(folder.name, minutes, s, c, asked.half, here) for s in range(asked.seeds) for c in choices):
                if asked.again or key not in load(results):
                    found = trained(key, folder, root)
                    append(results, found)
                    print(f"-- {key.name}: {found}", flush=True)
    asked_for = [r for k, r in load(results).items() if k.machine == here and k.folder in folders]
    for row in rows(asked_for):
        print(row, flush=True)


BENCHMARKS = (Benchmark("first_result", ("FOLDERS",), 4000, main),)
