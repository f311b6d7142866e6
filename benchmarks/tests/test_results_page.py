"""The page of results: a row for each promise, a missed one first; what several machines measured is side by side."""

from __future__ import annotations

from typing import Any

from benchmarks.common.results_page import page, promise, promises, short, side_by_side, subject_of


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


def test_rows_that_promise_the_same_are_one_and_a_missed_one_speaks_for_all() -> None:
    rows = [
        {"benchmark": f"sounds, seed {i}", "what": f"heard, {i} s; more", "ours": f"0.{9 - i}", "theirs": "1 (real)",
         "goal": goal, "reached": i < 2, "n": "40"}
        for i, goal in enumerate(("at least 0.8", "at least 0.8", "at least 0.8", "stated", "under 3"))
    ]  # fmt: skip
    same, other = promises(rows)
    assert promise(same) == ["sounds, seed 2: heard, 2 s", "at least 0.8", "0.7", "1 (real)", "**2 of 3**", "40"]
    assert promise(same[:2])[4] == "2 of 2"
    assert promise(other)[4] == "**no**"


def test_a_cell_is_cut_at_a_word() -> None:
    assert short("one; two") == "one"
    assert short("many words, and more", 12) == "many words …"


def test_results_are_under_the_subject_of_their_benchmark() -> None:
    assert [subject_of(n) for n in ("collect_near", "collect_extraction", "moses_masked", "fashion", "soak")] == [
        *("collect", "collect", "molecules", "images", "serve")
    ]
