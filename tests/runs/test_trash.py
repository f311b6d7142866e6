"""Runs that are thrown away come back as they were, until the bin is emptied."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.runs.lock import hold
from afresh.runs.trash import binned, delete, restore, throw


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    return tmp_path


def test_a_run_comes_back_to_where_it_was(runs: Path) -> None:
    thrown = throw(runs / "a")
    assert not (runs / "a").exists() and binned(runs)[0].path == thrown.path
    assert not list(runs.glob("a/run.json")) and [p.parent.name for p in runs.glob("*/run.json")] == ["b"]
    assert restore(binned(runs)[0]) == runs / "a"
    assert sorted(p.name for p in (runs / "a").iterdir()) == ["checkpoints", "run.json"]
    assert not binned(runs) and not list((runs / ".bin").iterdir())


def test_a_run_whose_name_is_taken_comes_back_beside(runs: Path) -> None:
    thrown = throw(runs / "a")
    (runs / "a").mkdir()
    assert restore(thrown) == runs / "a-2" and not list((runs / "a").iterdir())


def test_several_of_one_name_are_kept_apart_and_deleted(runs: Path) -> None:
    throw(runs / "a")
    (runs / "b").rename(runs / "a")
    throw(runs / "a")
    assert len(binned(runs)) == 2
    for thrown in binned(runs):
        assert delete(thrown) == []
    assert not binned(runs) and not list((runs / ".bin").iterdir())


def test_a_run_that_is_held_or_a_link_stays(runs: Path, held_elsewhere: None) -> None:
    with pytest.raises(UserError, match="moved to the bin"):
        throw(runs / "a")
    (runs / "link").symlink_to(runs / "b")
    with pytest.raises(UserError, match="is a link"):
        throw(runs / "link")
    assert (runs / "a" / "run.json").is_file() and (runs / "b" / "run.json").is_file() and not binned(runs)


@pytest.fixture
def held_elsewhere(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another process held the run `a`."""
    hold(runs / "a", "trained")
    monkeypatch.setattr("afresh.runs.lock._held", {})


def test_what_is_no_bin_of_runs_is_left_alone(runs: Path) -> None:
    for name in ("x", "20260101-000000-zz", "20260101-000000-0123456789"):
        (runs / ".bin" / name / "a").mkdir(parents=True)
        (runs / ".bin" / name / "a" / "run.json").write_text("{}")
    assert not binned(runs)
