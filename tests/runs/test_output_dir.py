"""A run is replaced when the new one can begin, and not before; what the new one is made of is not replaced at all."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.runs.lock import half_made
from afresh.runs.output_dir import check_output_dir, output_dir, put_aside
from afresh.runs.remove import remove_rest


def made(path: Path, text: str = "{}") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_text(text)
    return path


def test_a_run_is_replaced_once_the_new_one_is_made(tmp_path: Path) -> None:
    out = made(tmp_path / "run", "old")
    with output_dir(out, True):
        assert not (out / "run.json").exists()
        made(out, "new")
    assert (out / "run.json").read_text() == "new" and not put_aside(out).exists()


@pytest.mark.parametrize("error", [UserError("wrong"), KeyboardInterrupt(), ValueError("a fault")])
def test_it_is_back_where_making_the_new_one_fails(tmp_path: Path, error: BaseException) -> None:
    out = made(tmp_path / "run", "old")
    (out / "checkpoints").mkdir()
    with pytest.raises(type(error)), output_dir(out, True):
        made(out, "new")
        raise error
    assert (out / "run.json").read_text() == "old" and (out / "checkpoints").is_dir()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_command_that_is_told_to_end_leaves_it_too(tmp_path: Path) -> None:
    out = made(tmp_path / "run", "old")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), output_dir(out, True):
        made(out, "new")
        os.kill(os.getpid(), signal.SIGTERM)
    assert (out / "run.json").read_text() == "old" and signal.getsignal(signal.SIGTERM) is handler


def test_nothing_is_left_of_a_run_that_could_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrong"), output_dir(tmp_path / "run", False):
        made(tmp_path / "run")
        raise UserError("wrong")
    assert not list(tmp_path.iterdir())


def test_of_a_folder_with_other_things_those_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="other things"):
        check_output_dir(tmp_path, False)
    with pytest.raises(UserError, match="wrong"), output_dir(tmp_path, True):
        (tmp_path / "run.json").write_text("{}")
        (tmp_path / "encoder").mkdir()
        raise UserError("wrong")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("needed", ["run", "run/votes.jsonl", "link", "run/../run"])
def test_what_the_new_run_is_made_of_is_not_replaced(tmp_path: Path, needed: str) -> None:
    out = made(tmp_path / "run")
    (out / "votes.jsonl").write_text("")
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(UserError, match="an input of the new run"):
        check_output_dir(out, True, [tmp_path / needed])
    check_output_dir(out, True, [tmp_path / "elsewhere", tmp_path / "running"])
    assert (out / "votes.jsonl").exists()


def test_occupied_folders_are_refused(tmp_path: Path) -> None:
    out = made(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run"):
        check_output_dir(out, False)
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(UserError, match="is a link"):
        check_output_dir(tmp_path / "link", True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        check_output_dir(tmp_path / "file", True)


def test_a_run_that_a_killed_command_put_aside_is_not_lost(tmp_path: Path) -> None:
    made(tmp_path / "run.replaced", "old")
    with pytest.raises(UserError, match="put aside by a command that was killed"):
        check_output_dir(made(tmp_path / "run"), True)
    assert (tmp_path / "run.replaced" / "run.json").read_text() == "old"


def test_what_a_killed_command_had_made_is_made_anew_and_other_things_stay(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "encoder").mkdir(parents=True)
    holder = {"process": 1, "host": "a", "doing": "trained", "since": "2026-01-01 00:00:00"}
    (out / ".lock").write_text(json.dumps(holder))
    check_output_dir(out, False)
    (out / "samples").mkdir()
    with pytest.raises(UserError, match="other things"):
        check_output_dir(out, False)
    with output_dir(out, True):
        assert {p.name for p in out.iterdir()} == {".lock", "samples"}
        made(out)
    assert not half_made(out) and {p.name for p in out.iterdir()} == {".lock", "samples", "run.json"}
    (out / "run.json").unlink()
    (out / ".lock").write_text("of another program")
    assert not half_made(out) and not remove_rest(out)
