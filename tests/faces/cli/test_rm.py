"""`afresh rm` removes runs and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from afresh.data.imported import ImportedItem, write_aside, written_data
from afresh.faces.cli.doctor import data_finding
from afresh.faces.cli.rm import in_use
from tests.faces.cli.conftest import Invoke, parsed


@pytest.fixture
def copies(pictures_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds runs/a and runs/b, in which the command works."""
    for name in ("a", "b"):
        shutil.copytree(pictures_run, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_runs_are_removed_by_name_or_by_path(copies: Path, invoke: Invoke) -> None:
    code, out, err = invoke("rm", "a", "runs/b", "--yes")
    assert code == 0, err
    assert out.splitlines() == ["removed runs/a", "removed runs/b"]
    assert list(copies.iterdir()) == []


def test_everything_that_training_writes_is_of_the_run(copies: Path, invoke: Invoke) -> None:
    code, out, _ = invoke("rm", "a", "--yes", "--json")
    assert code == 0 and parsed(out) == {"removed": [{"run": "runs/a", "left": []}], "data": []}
    assert not (copies / "a").exists()


def test_other_files_stay(copies: Path, invoke: Invoke) -> None:
    (copies / "a" / "thesis.txt").write_text("mine")
    (copies / "a" / "mine.safetensors").write_bytes(b"mine")
    code, _, err = invoke("rm", "a", "--yes")
    assert code == 0 and "runs/a stays, because it holds what is not of the run: mine.safetensors, thesis.txt" in err
    assert sorted(p.name for p in (copies / "a").iterdir()) == ["mine.safetensors", "thesis.txt"]


def test_nothing_is_removed_without_a_yes(copies: Path, invoke: Invoke) -> None:
    code, out, err = invoke("rm", "a")  # standard input is not a terminal
    assert code == 2 and out == "" and "Removing runs/a cannot be undone. Say that it is meant: --yes" in err
    assert (copies / "a" / "run.json").is_file()


@pytest.mark.parametrize(("answer", "gone"), [("y", True), ("n", False)])
def test_a_person_is_asked(
    answer: str, gone: bool, copies: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def confirm(text: str) -> bool:
        asked.append(text)
        return answer == "y"

    monkeypatch.setattr("typer.confirm", confirm)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    code, out, _ = invoke("rm", "a")
    assert code == 0 and asked == ["Remove it for good?"]
    assert "runs/a: flow on image, " in out and "parameters, step 4, " in out
    assert (copies / "a").exists() is not gone


@pytest.mark.parametrize("what", ["digits", "nothing", "link"])
def test_what_is_no_run_is_refused_and_nothing_else_is_removed(
    what: str, copies: Path, digits: Path, invoke: Invoke
) -> None:
    shutil.copytree(digits, copies.parent / "digits")
    (copies.parent / "link").symlink_to(copies / "b")
    code, out, err = invoke("rm", "a", what, "--yes")
    assert code == 2 and out == ""
    assert ("is a link to" if what == "link" else f"{what} is not a run") in err
    assert (copies / "a" / "run.json").is_file() and (copies / "b" / "run.json").is_file()
    assert (copies.parent / "digits" / "d0").is_dir()


def test_data_that_was_kept_is_listed_and_removed_by_name(
    copies: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(copies.parent / "kept"))
    place = write_aside("text", [ImportedItem({"text": f"text {i}"}) for i in range(4)])
    name = place.parent.name
    record = json.loads((copies / "a" / "run.json").read_bytes())
    record["data"]["path"] = str(place)
    (copies / "a" / "run.json").write_text(json.dumps(record))
    (data,) = written_data()
    assert data.name == name and data.bytes > 50 and "runs/a" in in_use(data)
    assert name in data_finding(data).follows
    code, _, err = invoke("rm", "--data", "other", "--yes")
    assert code == 2 and name in err
    code, _, err = invoke("rm", "--data", name)
    assert code == 2 and "--yes" in err and place.is_dir()
    code, out, _ = invoke("rm", "--data", name, "--yes")
    assert code == 0 and out == f"removed {place.parent}\n" and not written_data()


def test_nothing_to_remove_is_said(invoke: Invoke) -> None:
    code, _, err = invoke("rm", "--yes")
    assert code == 2 and "--data NAME" in err
