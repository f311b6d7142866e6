"""Names on the command line: of runs, of commands, and `-` for standard input."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from afresh.faces.cli import commands as all_commands
from afresh.faces.cli.group import RENAMED
from afresh.faces.cli.paths import base_path, run_path
from tests.faces.cli.conftest import Invoke, drawn


@pytest.fixture
def here(texts_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run runs/notes, in which the command works."""
    shutil.copytree(texts_run, tmp_path / "runs" / "notes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_found_by_its_name(here: Path, invoke: Invoke) -> None:
    (here / "notes").mkdir()  # the data that it was trained on, which is no run
    code, out, err = invoke("sample", "notes", "-n", 1, "--length", 4, "--json")
    assert code == 0 and len(drawn(out)) == 1, err
    code, out, err = invoke("verify", "notes")
    assert code == 0 and "runs/notes: sound" in out, err


def test_a_run_at_the_path_itself_comes_first(here: Path) -> None:
    assert run_path(Path("notes")) == Path("runs/notes")
    assert run_path(Path("runs/notes")) == Path("runs/notes")
    assert run_path(here / "runs" / "notes") == here / "runs" / "notes"
    assert run_path(Path("other")) == Path("other") and run_path(None) is None
    shutil.copytree("runs/notes", "notes")
    assert run_path(Path("notes")) == Path("notes")


def test_a_base_is_a_run_unless_it_holds_weights(here: Path) -> None:
    assert base_path("notes") == "runs/notes"
    assert base_path("owner/name") == "owner/name"
    (here / "notes").mkdir()
    assert base_path("notes") == "runs/notes"
    (here / "notes" / "config.json").write_text("{}")
    assert base_path("notes") == "notes"


def test_a_missing_run_lists_those_with_similar_names_first(here: Path, invoke: Invoke) -> None:
    shutil.copytree("runs/notes", "runs/digits")
    code, _, err = invoke("sample", "nots")
    assert code == 2
    assert "nots is not a run: there is no such folder. Runs: runs/notes, runs/digits." in err.replace("\n", " ")


def test_help_of_a_command(invoke: Invoke) -> None:
    code, out, _ = invoke("help", "rm")
    assert (code, out) == (0, invoke("rm", "--help")[1]) and "Remove runs" in out
    assert invoke("help")[1] == invoke("--help")[1]
    code, out, err = invoke("help", "trian")
    assert code == 2 and out == "" and "No such command 'trian'. Did you mean 'train'?" in err


@pytest.mark.parametrize("old", RENAMED)
def test_a_command_of_before_says_what_it_is_now(old: str, invoke: Invoke) -> None:
    new = RENAMED[old]
    said = f"afresh {old} is now: afresh {new}"
    code, out, err = invoke(*old.split(), "x")
    assert code == 2 and out == "" and " ".join(err.split()) == said
    assert old not in all_commands() and any(new.startswith(name) for name in all_commands())


def test_a_prompt_from_standard_input(texts_run: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n"))
    code, out, err = invoke("sample", texts_run, "-n", 1, "--prompt", "-", "--length", 4, "--json")
    assert code == 0, err
    assert drawn(out)[0]["prompt"] == "the cat"
