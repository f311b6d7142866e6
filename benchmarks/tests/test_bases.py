"""Rows of public weights are read as their goals are stated, and contenders wait for their turns."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from benchmarks.bases import bases, memory, speed
from benchmarks.bases.exact import row
from benchmarks.bases.peers.peft import Ask
from benchmarks.bases.speed import OURS, THEIRS, Case, Found, rows_of
from benchmarks.common.turns import Side, Turns


def test_a_contender_waits_for_its_turn_and_tells_what_it_took(tmp_path: Path) -> None:
    turns, order = Turns(tmp_path, 2), list[str]()

    def contender() -> None:
        for step in range(4):
            turns.begin(step)
            order.append(f"step {step}")
            turns.end(step)

    thread = threading.Thread(target=contender, daemon=True)
    thread.start()
    side = Side(tmp_path, Future())
    for number in range(2):
        order.append(f"turn {number}")
        assert set(side.turn(number)) == {"seconds", "processor"}
    thread.join()
    assert order == ["turn 0", "step 0", "step 1", "turn 1", "step 2", "step 3"]


def test_what_ended_a_contender_is_raised(tmp_path: Path) -> None:
    ended: Future[None] = Future()
    ended.set_exception(RuntimeError("exit code 1"))
    with pytest.raises(RuntimeError, match="exit code 1"):
        Side(tmp_path, ended).turn(0)


def test_a_row_counts_the_kinds_that_differ_little() -> None:
    made = row("wrapped models", "pixels", "diffusers", {"a": 1e-5, "b": 2.0, "c": 0.0}, 1e-4, 2)
    assert (made.ours, made.n, made.reached) == ("2.0e+00; 2 of 3", "a, c", True)
    assert not row("wrapped models", "pixels", "diffusers", {"a": 1e-5}, 1e-4, 2).reached


def test_the_speed_is_that_of_the_processor() -> None:
    """Of one thread, whose waiting for others is no part of it."""
    found = {OURS: Found([9.0, 9.0], [2.0, 1.0], 10, 5), THEIRS: Found([1.0, 1.0], [3.0, 2.0], 20, 5)}
    made = rows_of(Case("SmolLM2-135M", (), "float32", 1.3), Ask("", [], 16, 32.0, 4, 256, "float32", 3, 1), found)
    assert [r.ratio for r in made] == [1.75, pytest.approx(1 / 9), 0.5]
    assert all(r.reached for r in made)


@pytest.mark.parametrize(("said", "reached"), [(1.0, True), (0.86, True), (0.84, False), (1.16, False)])
def test_memory_is_said_within_15_percent(said: float, reached: bool) -> None:
    assert memory.row("float32", {"said": said, "most": 1.0}).reached is reached


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install peft accelerate"):
        bases.PARTS["speed"]()
