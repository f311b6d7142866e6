"""Results of benchmarks: rows with a ratio, kept as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import torch

from afresh.engine.training.budget import processor
from benchmarks.common.folders import ROOT

OUT = ROOT / "benchmarks" / "results.json"


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio`: ours to theirs. `goal`: what should be reached; "stated" where nothing is promised."""

    benchmark: str
    what: str
    ours: str
    theirs: str = ""
    ratio: float | None = None
    goal: str = "stated"
    reached: bool = True
    n: str = ""


def this_machine() -> str:
    """The processor and the versions, as a row of results names them."""
    return f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"


def save(name: str, rows: list[Row]) -> None:
    """Put the rows of one benchmark into results.json, in place of what this machine had before. `make docs`
    then brings docs/results/benchmarks.md and the README up to date."""
    found, machine = load(), this_machine()
    made = {"machine": machine, "when": date.today().isoformat(), "rows": [asdict(r) for r in rows]}
    found[name] = [*(r for r in found.get(name, []) if r["machine"] != machine), made]
    OUT.write_text(json.dumps(found, indent=1) + "\n")


def load() -> dict[str, Any]:
    """Everything measured so far: by benchmark, a list with the rows of each machine, the newest last."""
    return json.loads(OUT.read_text()) if OUT.exists() else {}


def with_interval(score: Any, form: str = ".3f") -> str:
    """The value of an estimate, a score or a mark, and its interval where there is one."""
    if score.low is None or score.high is None:
        return f"{score.value:{form}}"
    return f"{score.value:{form}} ({score.low:{form}} to {score.high:{form}})"
