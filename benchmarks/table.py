"""Results of benchmarks: rows with a ratio, kept as JSON and shown as Markdown."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from afresh.training.budget import processor

OUT = Path(__file__).parent / "results.json"
DOC = Path(__file__).parent.parent / "docs" / "benchmarks.md"


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
    """Put the rows of one benchmark into results.json and rewrite docs/benchmarks.md."""
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    machine = (
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.python_version()}"
    )
    found[name] = {"machine": machine, "rows": [asdict(r) for r in rows]}
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    DOC.write_text(markdown(found))


def markdown(found: dict[str, dict[str, object]]) -> str:
    """The page, from results.json alone."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`; each row compares both sides in one run on one machine. Not edited by hand.",
        "",
        "| benchmark | what | afresh | beside | ratio | goal | reached | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    machines = set()
    for name in sorted(found):
        machines.add(str(found[name]["machine"]))
        for r in found[name]["rows"]:  # type: ignore[attr-defined]
            ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
            reached = "yes" if r["reached"] else "no"
            cells = [r["benchmark"], r["what"], r["ours"], r["theirs"], ratio, r["goal"], reached, r["n"]]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"Machine: {m}" for m in sorted(machines)), ""])
