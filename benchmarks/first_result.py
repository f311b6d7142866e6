"""What a person's own folder gives in 1, 5 and 20 minutes: `python -m benchmarks.first_result --folders photos200`.

On each of 12 folders (benchmarks/first_result_folders.py) the plan's choice, `afresh train FOLDER --minutes M`, is held
against alternatives given by hand that train for as long, by a score that was fixed beforehand
(benchmarks/first_result_judges.py). `whole` is the same plan with the measuring and the report that a user gets: its
seconds and its verdict count. Every finished training is a line of first_result/results.jsonl in AFRESH_BENCH (or
~/.cache/afresh-bench) and is not run twice, so that the grid, which takes days and is no part of `make bench`, can be
run in parts; `--table` writes what there is into the documentation.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from afresh.training.budget import processor
from benchmarks.first_result_folders import FOLDERS, Folder
from benchmarks.first_result_table import BASE, PLAN, WHOLE, Key, Result, append, load, rows
from benchmarks.judge_pictures import work_folder
from benchmarks.pinned import ROOT
from benchmarks.table import save

FIXED = {PLAN: ("--no-measure",), WHOLE: (), BASE: ("--base", "auto", "--no-measure")}
MINUTES, SEEDS = (1.0, 5.0, 20.0), 3
BUSY = "import os\nos.sched_setaffinity(0, {%d})\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


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
    from afresh.runs.run import Run, summary

    opened = Run.open(run)
    model = f"{opened.record.family}, {opened.record.parameters / 1e6:.2f}M, {summary(opened)['steps']:,} steps"
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


def main(given: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_result", description=__doc__.split("\n")[0])
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


if __name__ == "__main__":
    main(sys.argv[1:])
