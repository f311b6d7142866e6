"""What the shell offers, in a process of its own as a shell starts it: right, at once, and without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# One process completes several lines, as a shell would start it for each, and tells whether torch was imported.
CODE = """
import contextlib, io, json, os, sys
from afresh.faces.cli import main

shell, *lines = json.loads(sys.argv.pop())
found = []
for line in lines:
    os.environ |= {"_AFRESH_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    os.environ |= {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_TYPER_COMPLETE_ARGS": line}
    sys.argv = ["afresh"]
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())) as out, contextlib.suppress(SystemExit):
        main()
    out.flush()
    found.append(out.buffer.getvalue().decode().split())
print(json.dumps([found, "torch" in sys.modules]))
"""
LINES = {
    "afresh dis": ["distill"],
    "afresh sample di": ["digits"],
    "afresh rm digits te": ["texts"],
    "afresh train x --family tr": ["transformer"],
    "afresh train --resume dig": ["digits"],
    "afresh train x --modality im": ["image"],
    "afresh train x --family flow --set family.wid": ["family.widths="],
    "afresh train x --set train.war": ["train.warmup="],
    "afresh train x --modality image --data cro": ["crop="],
    "afresh sample digits --label d1": ["d1"],
    "afresh sample digits --label d1 --set sol": ["solver="],
    "afresh sample texts --set sol": [],
    "afresh align texts --set align.gro": ["align.group="],
    "afresh data x --set ne": ["near="],
    "afresh train x --set ign": ["ignore_stop="],
    "afresh sample nothing": [],
}


@pytest.fixture(scope="module")
def place(pictures_run: Path, texts_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs in its runs/."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(pictures_run, root / "runs" / "digits")
    shutil.copytree(texts_run, root / "runs" / "texts")
    return root


def offered(place: Path, *lines: str, shell: str = "bash") -> list[list[str]]:
    """The words that the shell is given for each line, whose last word is to be completed."""
    argv = [sys.executable, "-c", CODE, json.dumps([shell, *lines])]
    ended = subprocess.run(argv, cwd=place, capture_output=True, text=True)
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    found, torch = json.loads(ended.stdout)
    assert not torch, "torch was imported, which takes seconds"
    return [list(words) for words in found]


def test_words_are_offered(place: Path) -> None:
    assert dict(zip(LINES, offered(place, *LINES), strict=True)) == LINES


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_served(shell: str, place: Path) -> None:
    (words,) = offered(place, "afresh sample di", shell=shell)
    assert any("digits" in word for word in words)


def test_a_damaged_run_offers_nothing(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "runs" / "digits", tmp_path / "runs" / "digits")
    (tmp_path / "runs" / "digits" / "encoder" / "encoder.json").write_text('{"conds": [1]')
    assert offered(tmp_path, "afresh sample digits --label d") == [[]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_can_be_shown(shell: str) -> None:
    code = (
        "from afresh.faces.cli import main; import sys; sys.argv = ['afresh', '--show-completion', sys.argv[1]]; main()"
    )
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ended = subprocess.run([sys.executable, "-c", code, shell], env=env, capture_output=True, text=True)
    assert ended.returncode == 0 and f"complete_{shell}" in ended.stdout, ended.stderr
