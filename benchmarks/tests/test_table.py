"""Rows that several machines measured stand side by side, and the others do not."""

from __future__ import annotations

from typing import Any

from benchmarks.common.table import page, side_by_side


def run(machine: str, *rows: tuple[str, str]) -> dict[str, Any]:
    """What a machine measured: (what, ours) of each row."""
    rest = {"benchmark": "gan", "theirs": "", "ratio": None, "goal": "", "reached": True, "n": "1"}
    return {"machine": machine, "when": "2026-01-01", "rows": [{**rest, "what": w, "ours": o} for w, o in rows]}


def test_shared_rows_have_a_column_for_each_machine() -> None:
    intel = run("Intel", ("images a second; 2 steps", "80"), ("of one only", "1"))
    amd = run("AMD", ("images a second; 3 steps", "72"), ("images a second; again", "70"))
    lines = side_by_side({"steps": [intel, amd]}).splitlines()
    assert lines[0] == "| benchmark | what | AMD | Intel |"
    assert lines[2:] == ["| gan | images a second | 72 or 70 | 80 |"]


def test_one_machine_has_nothing_beside_it() -> None:
    alone = {"steps": [run("Intel", ("images a second", "80"))]}
    assert side_by_side(alone) == ""
    assert "side by side" not in page(alone)
