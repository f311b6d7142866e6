"""Names on the command line: of runs, of commands, and `-` for standard input."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest

from afresh.faces.cli import command
from afresh.faces.cli import commands as all_commands
from afresh.faces.cli.completion import names as listed
from afresh.faces.cli.group import RENAMED, SET
from afresh.faces.cli.paths import base_path, run_path
from tests.faces.cli.conftest import Invoke, drawn


@pytest.fixture
def here(texts_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run runs/notes, in which the command works."""
    shutil.copytree(texts_run, tmp_path / "runs" / "notes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_found_by_its_name(here: Path, invoke: Invoke) -> None:
    (here / "notes").mkdir()  # the data that it was trained on, which is not a run
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


def built(name: str) -> Any:
    """A command as click has it; that of a group by both of its names."""
    group = command()
    for word in name.split():
        group = group.commands[word]
    return group


RENAMED_NOW = [(name, old, new) for name in all_commands() for old, new in built(name).renamed.items()]


@pytest.mark.parametrize(("name", "old", "new"), RENAMED_NOW)
def test_an_option_of_before_says_what_it_is_now(name: str, old: str, new: str, invoke: Invoke) -> None:
    code, out, err = invoke(*name.split(), old, "x")
    assert code == 2 and out == "" and f"{old} is now: {new}. See: afresh {name} --help" in " ".join(err.split())
    built_now = built(name)
    flag, setting = new.split()
    joined = list(built_now.joined(None, [flag, setting]))
    known = {option for p in built_now.params for option in p.opts}
    own = {name for names in listed()["sampling"].values() for name in names}
    assert joined[0].partition("=")[0] in known and (flag != SET or len(joined) == 1 or setting.split("=")[0] in own)


def test_a_name_is_an_option_or_a_setting_of_every_command() -> None:
    options = {
        p.name for name in all_commands() for p in built(name).params if p.opts[0].startswith("--") and not p.hidden
    }
    settings = {setting for name in all_commands() for setting in built(name).settings}
    assert not options & settings


def test_settings_are_explained_and_checked(texts_run: Path, invoke: Invoke) -> None:
    code, out, _ = invoke("score", "--set", "help")
    assert code == 0 and "--set draws=VALUE" in out and "--set end=VALUE" in out
    for given, said in (
        ("draws=many", "'--set draws': it should be a whole number"),
        ("dras=4", "No setting dras. Known: end, draws"),
        ("draws=0", "draws"),
    ):
        code, out, err = invoke("score", texts_run, "--text", "the cat", "--set", given)
        assert code == 2 and out == "" and said in " ".join(err.split())
    scores = [invoke("score", texts_run, "--text", "the cat", "--json", f"--set=end={end}") for end in ("no", "yes")]
    assert [code for code, _, _ in scores] == [0, 0] and scores[0][1] != scores[1][1]
