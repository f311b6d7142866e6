"""What a person's own folder gives in 1, 5 and 20 minutes: `python -m benchmarks.first_result --folders photos200`.

On each of 12 folders (benchmarks/first_result_folders.py) the plan's choice, `afresh train FOLDER --minutes M`, is held
against alternatives given by hand that train for as long, by a score that was fixed beforehand
(benchmarks/first_result_judges.py). `whole` is the same plan with the measuring and the report that a user gets: its
seconds and its verdict count. Every finished training is a line of first_result/results.jsonl in AFRESH_BENCH (or
~/.cache/afresh-bench) and is not run twice, so that the grid, which takes days, can be run in parts; `--table` writes
what there is into the documentation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from threading import Timer

from benchmarks.first_result_folders import FOLDERS, Folder
from benchmarks.first_result_judges import Judged
from benchmarks.judge_pictures import work_folder
from benchmarks.pinned import ROOT
from benchmarks.table import Row, save

PLAN, WHOLE, BASE = "plan", "whole", "base"
FIXED = {PLAN: ("--no-measure",), WHOLE: (), BASE: ("--base", "auto", "--no-measure")}
MINUTES, SEEDS = (1.0, 5.0, 20.0), 3
# Stated before any run.
NEAR, WORST, CELLS = 1.10, 2.0, 0.9  # times the best alternative's score; share of cells that must be that near
RECOGNISED = 0.9  # of photographs after one minute
PUNCTUAL = 1.10  # times the minutes, report included
BUSY = "import os\nos.sched_setaffinity(0, {%d})\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


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


# --------------------------------------------------------------------------- training


def machine() -> str:
    from afresh.training.budget import processor

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
    chosen = FIXED.get(key.choice) or (*folder.choices[key.choice], "--no-measure")
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
    from afresh.runs.run import Run, summary

    opened = Run.open(run)
    model = f"{opened.record.family}, {opened.record.parameters / 1e6:.2f}M, {summary(opened)['steps']:,} steps"
    verdict = read_verdict(run)
    try:
        found = folder.judge.judge(data, Model(opened))
    except (UserError, ValueError) as error:
        return Result(key, seconds, f"cannot be judged: {error}", None, model, verdict)
    return Result(key, seconds, "", found, model, verdict)


def read_verdict(run: Path) -> str:
    """The verdict's word in the run's report; empty without one."""
    try:
        return str(json.loads((run / "report.json").read_bytes())["sections"][0]["verdict"]["word"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


# --------------------------------------------------------------------------- results


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
        key = Key(**fields.pop("key"))
        scores = fields.pop("judged")
        found[key] = Result(key, **fields, judged=None if scores is None else Judged(**scores))
    return found


def scored(results: Sequence[Result]) -> dict[str, dict[int, Result]]:
    """Results that have a score by choice and seed, on the whole machine."""
    found: dict[str, dict[int, Result]] = {}
    for r in results:
        if r.judged is not None and math.isfinite(r.judged.score) and not r.key.half:
            found.setdefault(r.key.choice, {})[r.key.seed] = r
    return found


def score(results: Mapping[int, Result], seeds: Sequence[int]) -> float:
    """The mean score over seeds, none below its floor: what cannot be told from real items is as good as another.
    Infinite if one of the seeds has no score."""
    if any(s not in results for s in seeds):
        return math.inf
    return mean(max(r.score, r.floor) for s in seeds if (r := results[s].judged) is not None)


def cell(results: Sequence[Result]) -> Row | None:
    """The plan beside the best alternative on one folder for some minutes, over the seeds for which the plan was
    trained; None if there is nothing to compare. A plan that failed is infinitely bad."""
    seeds = sorted({r.key.seed for r in results if r.key.choice == PLAN and not r.key.half})
    found = scored(results)
    others = {k: score(v, seeds) for k, v in found.items() if k not in FIXED}
    others = {k: v for k, v in others.items() if v < math.inf}
    if not seeds or not others:
        return None
    key, own = results[0].key, score(found.get(PLAN, {}), seeds)
    best = min(others, key=lambda k: others[k])
    ratio, near = own / others[best], [f"{k} {v:.3g}" for k, v in sorted(others.items(), key=lambda o: o[1])]
    extra = [f"{k} {score(found[k], seeds):.3g}" for k in (WHOLE, BASE) if k in found]
    what = f"{FOLDERS[key.folder].judge.title}, {key.minutes:g} min; {about(results, seeds)}"
    beside = f"{others[best]:.3g}: {', '.join(near)}" + (f"; not counted: {', '.join(extra)}" if extra else "")
    goal = f"at most {NEAR:g} times the best of {len(others)}"
    ours, shown = ("no model", None) if own == math.inf else (f"{own:.3g}", ratio)
    return Row(f"first result, {key.folder}", what, ours, beside, shown, goal, ratio <= NEAR, said(len(seeds)))


def about(results: Sequence[Result], seeds: Sequence[int]) -> str:
    """The plan's models, what is recognised, its seconds, and the verdicts."""
    plans = [r for r in results if r.key.choice == PLAN and r.key.seed in seeds and not r.key.half]
    parts = list(dict.fromkeys(r.model or r.error for r in plans))
    parts.append(f"{mean(r.seconds for r in plans):.0f} s")
    parts += [f"recognised {mean(shares):.2f}"] if (shares := recognised(plans)) else []
    verdicts = [r.verdict for r in results if r.verdict and not r.key.half]
    return "; ".join(parts + ([f"verdicts: {', '.join(verdicts)}"] if verdicts else []))


def recognised(results: Iterable[Result]) -> list[float]:
    return [r.judged.recognised for r in results if r.judged is not None and r.judged.recognised is not None]


def said(seeds: int) -> str:
    return f"{seeds} seed" + "s" * (seeds != 1)


def rows(results: Sequence[Result]) -> list[Row]:
    """The summary of the cells, what is recognised after a minute, how punctual whole commands are, and the cells."""
    groups: dict[tuple[str, float], list[Result]] = {}
    for r in sorted(results, key=lambda r: (list(FOLDERS).index(r.key.folder), r.key.minutes, r.key.seed)):
        groups.setdefault((r.key.folder, r.key.minutes), []).append(r)
    cells = [row for group in groups.values() if (row := cell(group)) is not None]
    extra = [row for group in groups.values() for row in (*recognised_rows(group), *punctual_rows(group))]
    return [*summary_rows(cells), *extra, *cells]


def summary_rows(cells: Sequence[Row]) -> list[Row]:
    if not cells:
        return []
    near, worst = mean(r.reached for r in cells), max(math.inf if r.ratio is None else r.ratio for r in cells)
    title, n = "first result", f"{len(cells)} cells"
    share, most = f"share of cells within {NEAR:g} times the best alternative", "worst cell, times the best alternative"
    return [
        Row(title, share, f"{near:.2f}", "", None, f"at least {CELLS:g}", near >= CELLS, n),
        Row(title, most, f"{worst:.2f}", "", None, f"at most {WORST:g}", worst <= WORST, n),
    ]


def recognised_rows(group: Sequence[Result]) -> list[Row]:
    """Of 200 photographs after a minute, by the plan."""
    key, shares = group[0].key, recognised(scored(group).get(PLAN, {}).values())
    if (key.folder, key.minutes) != ("photos200", 1) or not shares:
        return []
    share, goal = mean(shares), f"at least {RECOGNISED:g}"
    title, what = f"first result, {key.folder}", f"class recognised, {key.minutes:g} min"
    return [Row(title, what, f"{share:.2f}", "", None, goal, share >= RECOGNISED, said(len(shares)))]


def punctual_rows(group: Sequence[Result]) -> list[Row]:
    """The seconds of the whole command, report included; with half of the machine taken away, too."""
    key, out = group[0].key, []
    for half in (False, True):
        spent = [r.seconds for r in group if r.key.choice == WHOLE and r.key.half == half and not r.error]
        if spent:
            ratio = mean(spent) / (60 * key.minutes)
            what = (
                f"seconds of the command, report included, {key.minutes:g} min" + ", half of the machine taken" * half
            )
            title, beside = f"first result, {key.folder}", f"{60 * key.minutes:g} (asked for)"
            goal, reached = f"at most {PUNCTUAL:g}", ratio <= PUNCTUAL
            out.append(Row(title, what, f"{mean(spent):.0f}", beside, ratio, goal, reached, said(len(spent))))
    return out


# --------------------------------------------------------------------------- running


def main(given: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_result", description=__doc__.split("\n")[0])
    parser.add_argument("--folders", default=",".join(FOLDERS), help="with commas; all by default")
    parser.add_argument("--minutes", default=",".join(f"{m:g}" for m in MINUTES), help="with commas")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--only", default="", help="choices, with commas: plan,whole,base,flow-64")
    parser.add_argument("--half", action="store_true", help="take half of the machine away from a third on (whole)")
    parser.add_argument("--again", action="store_true", help="train what was trained before anew")
    parser.add_argument("--table", action="store_true", help="train nothing; write the table from what was trained")
    asked = parser.parse_args(given)
    root, here = work_folder("first_result"), machine()
    results = root / "results.jsonl"
    if asked.table:
        save("first_result", rows([r for r in load(results).values() if r.key.machine == here]))
        return
    folders = [f for f in asked.folders.split(",") if f]
    known = {*FIXED, *(c for f in FOLDERS.values() for c in f.choices)}
    only = tuple(c for c in asked.only.split(",") if c) or ((WHOLE,) if asked.half else ())
    for kind, names, allowed in (("folder", folders, FOLDERS), ("choice", only, known)):
        if unknown := sorted(set(names) - set(allowed)):
            parser.error(f"there is no {kind} {', '.join(unknown)}; choose from {', '.join(sorted(allowed))}")
    for minutes in sorted(map(float, asked.minutes.split(","))):
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


if __name__ == "__main__":
    main(sys.argv[1:])
