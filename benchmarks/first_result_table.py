"""Results of the benchmark of first results: kept as JSON lines, and the rows of the table that they make."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from benchmarks.first_result_folders import FOLDERS
from benchmarks.first_result_judges import Judged
from benchmarks.table import Row

PLAN, WHOLE, BASE = "plan", "whole", "base"  # choices that are no alternatives to the plan
# Stated before any run.
NEAR, WORST, CELLS = 1.10, 2.0, 0.9  # times the best alternative's score; share of cells that must be that near
RECOGNISED = 0.9  # of photographs after one minute
PUNCTUAL = 1.10  # times the minutes, report included


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
        Row(title, share, f"{near:.2f}", "", None, f"at least {CELLS:g}", near >= CELLS, n),
        Row(title, most, f"{worst:.2f}", "", None, f"at most {WORST:g}", worst <= WORST, n),
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
