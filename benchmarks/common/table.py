"""Results of benchmarks: rows with a ratio, kept as JSON and shown as Markdown."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import torch

from afresh.training.budget import processor
from benchmarks.common.folders import ROOT

OUT = ROOT / "benchmarks" / "results.json"
DOC = ROOT / "docs" / "results" / "benchmarks.md"


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is ours to theirs; `goal`: what should be reached, "stated" where nothing
    was promised."""

    benchmark: str
    what: str
    ours: str
    theirs: str = ""
    ratio: float | None = None
    goal: str = "stated"
    reached: bool = True
    n: str = ""


def save(name: str, rows: list[Row]) -> None:
    """Put the rows of one benchmark into results.json, in place of what this machine had before, and rewrite
    docs/results/benchmarks.md. `make docs` then brings the README's numbers up to date."""
    found = load()
    machine = f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"
    made = {"machine": machine, "when": date.today().isoformat(), "rows": [asdict(r) for r in rows]}
    found[name] = [*(r for r in found.get(name, []) if r["machine"] != machine), made]
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    DOC.write_text(page(found))


def load() -> dict[str, Any]:
    """Everything measured so far: by benchmark, a list with the rows of each machine, the newest last."""
    return json.loads(OUT.read_text()) if OUT.exists() else {}  # type: ignore[no-any-return]


def table(runs: dict[str, Any]) -> str:
    """Every row of some runs, by benchmark, and the machines."""
    lines = [
        "| benchmark | what | afresh | beside | ratio | goal | reached | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(runs):
        for r in runs[name]["rows"]:
            ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
            reached = "yes" if r["reached"] else "no"
            cells = [r["benchmark"], r["what"], r["ours"], r["theirs"], ratio, r["goal"], reached, r["n"]]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *machines(runs)])


def machines(runs: dict[str, Any]) -> list[str]:
    """A line for each machine: what was measured on it, and when."""
    found: dict[str, list[str]] = {}
    for name in sorted(runs):
        found.setdefault(runs[name]["machine"], []).append(f"{name} ({runs[name]['when']})")
    return [f"{machine}: {', '.join(names)}." for machine, names in sorted(found.items())]


def side_by_side(found: dict[str, Any]) -> str:
    """What was measured on more than one machine: a column for each. What stands after a semicolon in a row may differ.
    Empty if there is no such row."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for runs in found.values():
        for run in runs:
            for r in run["rows"]:
                cells = rows.setdefault((r["benchmark"], r["what"].partition(";")[0]), {})
                cells.setdefault(run["machine"], []).append(r["ours"])
    shared = {k: cells for k, cells in rows.items() if len(cells) > 1}
    every = sorted({machine for cells in shared.values() for machine in cells})
    lines = [f"| benchmark | what | {' | '.join(every)} |", "|---|---|" + "---|" * len(every)]
    for (benchmark, what), cells in sorted(shared.items()):
        each = (" or ".join(dict.fromkeys(cells.get(m, []))) for m in every)
        lines.append(f"| {benchmark} | {what} | {' | '.join(each)} |")
    return "\n".join(lines) if shared else ""


def page(found: dict[str, Any]) -> str:
    """docs/results/benchmarks.md, from results.json alone: the processors side by side, and a part for each machine."""
    head = "# Benchmarks\n\nMade by `make bench`; each row compares both sides in one run. Not edited by hand."
    every = sorted({run["machine"] for runs in found.values() for run in runs})
    both = side_by_side(found)
    parts = [head, *([f"## Processors side by side\n\n{both}"] if both else [])]
    for machine in every:
        here = {name: run for name, runs in found.items() for run in runs if run["machine"] == machine}
        parts.append(f"## {machine}\n\n{table(here)}")
    return "\n\n".join(parts) + "\n"
