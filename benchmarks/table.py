"""Results of benchmarks: rows with a ratio, kept as JSON and shown as Markdown."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from afresh.training.budget import processor

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "results.json"
DOC = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is ours to theirs in the sense of `better`; `goal` is what it should reach."""

    benchmark: str
    what: str
    ours: str
    theirs: str
    ratio: float | None
    goal: str
    reached: bool
    n: str


def save(name: str, rows: list[Row]) -> None:
    """Put the rows of one benchmark into results.json, and rewrite docs/benchmarks.md and the README's block."""
    found = load()
    machine = f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"
    found[name] = {"machine": machine, "rows": [asdict(r) for r in rows]}
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    DOC.write_text(page(found))
    README.write_text(with_block(README.read_text(), table(found)))


def load() -> dict[str, Any]:
    """Everything measured so far."""
    return json.loads(OUT.read_text()) if OUT.exists() else {}  # type: ignore[no-any-return]


def with_block(text: str, block: str) -> str:
    """`text` with what stands between the markers replaced."""
    before, after = text.split(START)[0], text.split(END)[1]
    return f"{before}{START}\n{block}\n{END}{after}"


def table(found: dict[str, Any]) -> str:
    """Every row, and the machine."""
    lines = [
        "| benchmark | what | afresh | beside | ratio | goal | reached | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(found):
        for r in found[name]["rows"]:
            ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
            reached = "yes" if r["reached"] else "no"
            cells = [r["benchmark"], r["what"], r["ours"], r["theirs"], ratio, r["goal"], reached, r["n"]]
            lines.append("| " + " | ".join(cells) + " |")
    machines = sorted({str(v["machine"]) for v in found.values()})
    return "\n".join([*lines, "", *(f"Machine: {m}." for m in machines)])


def page(found: dict[str, Any]) -> str:
    """docs/benchmarks.md, from results.json alone."""
    head = "# Benchmarks\n\nMade by `make bench`; each row compares both sides in one run. Not edited by hand."
    return f"{head}\n\n{table(found)}\n"
