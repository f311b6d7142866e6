"""Names of data, classes and runs never command the terminal: every verb shows their control characters instead."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faces.cli.conftest import FLOW, Invoke, trained

# Sets the clipboard, moves the cursor, a C1 code, an override of direction, and a line that looks like one of ours.
EVIL = "x\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202egnp\nwarning: forged"


def check(printed: str) -> None:
    """Nothing but printable characters and line ends, and no line that a name has made."""
    assert printed.replace("\n", "").isprintable(), ascii(printed)
    assert not [line for line in printed.splitlines() if line.startswith("warning: forged")], printed


@pytest.fixture(scope="module")
def evil(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images whose name, a class and a file have such names."""
    data = tmp_path_factory.mktemp("evil") / EVIL
    for name in ("d0", "d1"):
        shutil.copytree(digits / name, data / (EVIL if name == "d1" else name))
    (data / EVIL / f"{EVIL}.png").write_bytes(b"no image")
    return data


@pytest.fixture(scope="module")
def run(evil: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(evil, tmp_path_factory.mktemp("runs") / EVIL, *FLOW)


def test_train(evil: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, out, err = invoke("train", evil, "--steps", 2, "--out", tmp_path / EVIL, "--no-measure", *FLOW)
    assert code == 0 and "\\033]52" in out and "\u241b]52" in err  # a path is quoted as a shell reads it
    check(out)
    check(err)


@pytest.mark.parametrize(
    "command",
    [
        "show PARENT",
        "show RUN",
        "measure RUN -n 8",
        "verify RUN",
        "data DATA",
        "sample RUN -n 2",
        "sample RUN -n 2 --out OUT",
        "sample RUN -n 2 --label NONE",
        "train DATA --out RUN",
        "train --resume RUN --no-measure",
        "train OUT",
        "train --resume OUT",
        "train DATA --family NONE",
        "train DATA --set NONE=1",
        "NONE",
        "show NONE",
        "rm RUN",
        "rm RUN --NONE",
    ],
)
def test_other_verbs_and_errors(command: str, evil: Path, run: Path, tmp_path: Path, invoke: Invoke) -> None:
    places = {"PARENT": run.parent, "RUN": run, "DATA": evil, "OUT": tmp_path / EVIL}
    words = [str(places.get(w, w)).replace("NONE", EVIL) for w in command.split()]
    code, out, err = invoke(*words)
    check(out)
    check(err)
    assert code == 0 or "52;c;ZXZpbA" in out + err


def test_a_run_that_cannot_be_read_is_named_safely(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / EVIL).mkdir()
    (tmp_path / EVIL / "run.json").write_text('{"modality": "a\\u001b[2J", "' + "\\u009b" + '": 1}')
    for words in (("show", tmp_path), ("show", tmp_path / EVIL), ("rm", tmp_path / EVIL)):
        _, out, err = invoke(*words)
        assert "x\u241b]52" in err
        check(out)
        check(err)
