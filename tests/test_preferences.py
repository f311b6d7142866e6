"""The user's settings: argument, then environment, then file, then default; what is wrong is named with its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.preferences import Preferences, config_file, in_force, preferences, unknown_variables, variable


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration folder of this test's own, and no variable of the person who runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in Preferences.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


def write(text: str) -> Path:
    file = config_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_without_a_file_every_setting_has_its_default() -> None:
    assert {s.source for s in in_force()} == {"default"}
    assert preferences().minutes == 5 and preferences().runs == Path("runs")


def test_the_environment_comes_before_the_file_and_the_file_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write('minutes = 9\ndevice = "cpu"\n')
    monkeypatch.setenv("AFRESH_MINUTES", "2")
    found = {s.name: (s.value, s.source) for s in in_force()}
    assert found["minutes"] == (2, "AFRESH_MINUTES") and found["device"] == ("cpu", str(file))
    assert found["quiet"] == (False, "default")


def test_folders_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AFRESH_RUNS", "~/models")
    assert preferences().runs == tmp_path / "models"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quiet = true\nminuts = 3\n", r"config.toml, line 2: there is no setting minuts. Known: device, threads, .*"),
        ('quiet = true\nminutes = "long"\n', r"config.toml, line 2: minutes is 'long'.*0.5.*1h30m"),
        ("threads = 0\n", r"config.toml, line 1: threads is 0.*at least 1"),
        ("[device]\nname = 1\n", r"config.toml, line 1: device is .*a text"),
        ("quiet = \n", r"config.toml: Invalid value \(at line 1"),
        ("quiet = true\nquiet = true\n", r"config.toml: Cannot overwrite a value \(at line 2"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(text: str, says: str) -> None:
    write(text)
    with pytest.raises(UserError, match=says):
        preferences()


def test_a_file_that_is_not_text_is_named() -> None:
    write("").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"config.toml"):
        preferences()


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    write("threads = 2\n")
    monkeypatch.setenv("AFRESH_THREADS", "many")
    with pytest.raises(UserError, match=r"AFRESH_THREADS: threads is 'many'.*whole number.*Correct it, or remove it"):
        preferences()


def test_a_variable_that_is_no_setting_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_MINUTS", "3")
    assert "AFRESH_MINUTS" in unknown_variables()


def test_reading_them_imports_nothing_heavy() -> None:
    code = "import sys, afresh.data.preferences as p; p.preferences(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
