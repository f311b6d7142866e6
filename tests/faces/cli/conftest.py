"""Runs of a few steps, trained once through the command line: digits by a flow, sentences by a Transformer and
by masked diffusion."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from afresh.faces.cli import run

FLOW = ("--family", "flow", "--set", "family.widths=[8, 16]", "--set", "train.batch=16")
WORDS = ("--set", "family.layers=1", "--data", "context=32", "--set", "train.batch=8")
AT_THE_END = ("--set", "train.eval_every=4", "--set", "train.preview_every=4")
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run a command line: (exit code, standard output, standard error)."""

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(a) for a in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output and standard error are taken for a terminal with all colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}.items():
        monkeypatch.setenv(name, value)


def lines_of(out: str) -> list[dict[str, Any]]:
    """The lines that a command with --json writes to standard output; the last one is the result or the error."""
    assert out.endswith("\n"), out
    found = [json.loads(line) for line in out.splitlines()]
    assert {line["event"] for line in found[:-1]} <= {"progress", "note", "warning"}, out
    assert found[-1]["event"] in ("result", "error"), out
    return found


def parsed(out: str) -> dict[str, Any]:
    """The fields of the result of a command with --json."""
    *_, last = lines_of(out)
    assert last.pop("event") == "result", last
    return last


def error_of(out: str) -> dict[str, Any]:
    """The error that ended a command with --json."""
    *_, last = lines_of(out)
    assert last["event"] == "error" and last["code"], last
    return last


def drawn(out: str) -> list[dict[str, Any]]:
    """The records of the samples that a command with --json drew."""
    return list(parsed(out)["samples"])


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 of scikit-learn's digits in class folders, one copied, with a licence."""
    root = tmp_path_factory.mktemp("data") / "digits"
    data = load_digits()
    for i in range(200):
        folder = root / f"d{data.target[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[i] * 255 / 16).astype(np.uint8)).save(folder / f"{i:03d}.png")
    (root / "d0" / "copy.png").write_bytes((root / "d0" / "000.png").read_bytes())
    (root / "LICENSE").write_text("\nCreative Commons Attribution 4.0\n\nmore\n")
    (root / "d1" / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 short texts of a few words."""
    root = tmp_path_factory.mktemp("data") / "texts"
    root.mkdir()
    draw = random.Random(1)
    for i in range(60):
        words = draw.choices(["the", "cat", "sat", "on", "a", "mat", "and", "slept"], k=40)
        (root / f"{i:02d}.txt").write_text(" ".join(words) + ".\n")
    return root


def trained(path: Path, out: Path, *more: str) -> Path:
    """Four steps; the held-out loss is measured and samples are shown after the last alone."""
    assert run(["train", str(path), "--steps", "4", "--out", str(out), "--no-measure", *AT_THE_END, *more]) == 0
    return out


@pytest.fixture(scope="session")
def pictures_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(digits, tmp_path_factory.mktemp("runs") / "digits", *FLOW)


@pytest.fixture(scope="session")
def texts_run(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(texts, tmp_path_factory.mktemp("runs") / "texts", *WORDS)


@pytest.fixture(scope="session")
def masked_run(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(texts, tmp_path_factory.mktemp("runs") / "masked", *WORDS, "--family", "masked")
