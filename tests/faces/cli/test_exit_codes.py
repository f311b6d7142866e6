"""Every exit code of docs/reference/exit-codes.md, and no other: a script can tell a fault of a run from a crash."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import afresh.faces.cli as cli
from afresh.core import UserError
from afresh.core.errors import Diverged, Interrupted

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "exit-codes.md"


def exit_code(monkeypatch: pytest.MonkeyPatch, *argv: object) -> int:
    monkeypatch.setattr(sys, "argv", ["afresh", *map(str, argv)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_page_has_every_code() -> None:
    listed = [int(code) for code in re.findall(r"(?m)^\| (\d+) \|", PAGE.read_text())]
    assert listed == [cli.DONE, cli.FAULT, cli.USAGE, cli.DIVERGED, cli.CRASHED, cli.INTERRUPTED]


def test_done_a_fault_and_bad_usage(texts_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(monkeypatch, "show", texts_run) == 0
    assert exit_code(monkeypatch, "measure", tmp_path) == 2
    assert exit_code(monkeypatch, "show", "--no-such-option") == 2
    (tmp_path / "run.json").write_bytes((texts_run / "run.json").read_bytes())
    assert exit_code(monkeypatch, "verify", tmp_path) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no"), 2),
        (PermissionError(13, "Permission denied", "place"), 2),
        (Diverged("away"), 3),
        (Interrupted("saved"), 130),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 0),
        (RuntimeError("oops"), 70),
        (KeyError("oops"), 70),
        (MemoryError(), 70),
        (RecursionError(), 70),
        (FileNotFoundError(2, "No such file or directory", "weights"), 70),
    ],
)
def test_each_way_to_end(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(folder: Any) -> Any:
        raise error

    monkeypatch.setattr("afresh.runs.run.Run.open", fails)
    assert exit_code(monkeypatch, "measure", ".") == code
    assert ("Traceback" in capfd.readouterr().err) is (code == 70)


def test_a_crash_does_not_send_names_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(folder: Any) -> Any:
        raise RuntimeError("a\x1b]52;c;ZXZpbA==\x07\u202eb")

    monkeypatch.setattr("afresh.runs.run.Run.open", fails)
    assert exit_code(monkeypatch, "measure", ".") == 70
    printed = capfd.readouterr().err
    assert "a\u241b]52" in printed and printed.replace("\n", "").isprintable()
