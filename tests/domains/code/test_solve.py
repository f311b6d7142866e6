"""Answers to tasks, run in the sandbox: right ones pass, others do not, and the reason is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from afresh.core import UserError
from afresh.domains.code.solve import check_runner, judge, read_tasks, solve_tasks
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from afresh.runs.sandbox.processes import Sandbox, SandboxLimits
from tests import needs
from tests.domains.code.test_metrics import HUMAN, MBPP
from tests.faces.cli.conftest import parsed

pytestmark = pytest.mark.slow

BOX = Sandbox(SandboxLimits(seconds=2))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    file = tmp_path / "tasks.jsonl.gz"
    file.write_bytes(gzip.compress(f"{json.dumps(MBPP)}\n\n{json.dumps(HUMAN)}\n".encode()))
    return file


@needs.sandbox
def test_reference_answers_pass_and_empty_ones_do_not(tasks: Path) -> None:
    notes: list[str] = []
    assert check_runner(read_tasks(tasks), BOX, notes) == (1.0, 0.0) and not notes
    wrong = [*read_tasks(tasks), *read_tasks(tasks)]
    object.__setattr__(wrong[0], "reference", "def add(a, b):\n    return a - b")
    assert check_runner(wrong, BOX, notes) == (0.75, 0.0)
    assert "reference answers of 1 tasks fail their own tests here: 7 (error)" in notes[0]


@needs.sandbox
@pytest.mark.parametrize(
    ("answer", "good", "status"),
    [
        ("def add(a, b):\n    return b + a", True, "ok"),
        ("def add(a, b):\n    return 3", False, "error"),
        ("def add(a, b):\n    while True: pass", False, "time"),
        ("import sys; sys.exit(0)", False, "ok"),  # leaves before the tests
        ("import os; os._exit(0)", False, "ok"),
        ("def add(:", False, "error"),
        ("def add(a, b):\n    print('x' * 10**6)\n    return a + b", False, "output"),
    ],
)
def test_an_answer_is_judged_by_its_tests(answer: str, good: bool, status: str, tasks: Path) -> None:
    ((found, outcome),) = judge([(read_tasks(tasks)[0], answer)], BOX)
    assert (found, outcome.status) == (good, status)


class Parrot:
    """A run that knows the answer to the first task, by every other draw."""

    def __init__(self, real: Run) -> None:
        self.real = real
        self.modules, self.record, self.path, self.conds = real.modules, real.record, real.path, real.conds
        self.space, self.settings, self.condition, self.encoder = real.space, real.settings, real.condition, self
        self.asked: list[str] = []

    def draw(self, modules: object, cond: object, seed: int, settings: object) -> torch.Tensor:
        return torch.arange(cond.size)[:, None]  # type: ignore[attr-defined]

    def encode(self, items: object) -> object:
        return self.real.encoder.encode(items)  # type: ignore[arg-type]

    def decode(self, x: torch.Tensor) -> list[str]:
        return ["def add(a, b):\n    return a + b\nprint(add(1, 2))" if i % 2 else "pass" for i in range(len(x))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("solve")
    for i in range(12):
        (root / f"m{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n" * 3)
    argv = ["train", str(root), "--steps", "2", "--out", str(root / "run"), "--no-measure", "--data", "context=16"]
    assert command([*argv, "--set", "family.layers=1", "--set", "train.batch=4"]) == 0
    return Run.open(root / "run")


@needs.sandbox
def test_pass_at_k_of_a_run_that_knows_half(run: Run, tasks: Path) -> None:
    found = solve_tasks(Parrot(run), tasks, 10, sandbox=BOX)  # type: ignore[arg-type]
    assert [(s.name, round(s.value, 6), s.floor, s.control) for s in found.scores] == [
        ("pass@1", 0.25, 1.0, 0.0),
        ("pass@10", 0.5, 1.0, 0.0),
    ]
    assert [(r["task_id"], r["passed"], r["outcomes"]) for r in found.results] == [
        ("7", 5, {"passed": 5, "error": 5}),
        ("HumanEval/0", 0, {"error": 10}),
    ]
    assert found.card["count"] == 2 and found.card["limits"]["seconds"] == 2


@needs.sandbox
def test_the_verb(run: Run, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["solve", str(run.path), str(tasks), "-n", "2", "--length", "4"]
    assert command([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    found = parsed(out)
    assert found["metrics"][0]["name"] == "pass@1" and found["metrics"][0]["value"] == 0
    assert sum(sum(r["outcomes"].values()) for r in found["results"]) == 4
    assert "the model sees the last 16 of them" in err + str(found["notes"])
    assert command([*argv, "--set", "first=1"]) == 0
    assert "pass@1" in capsys.readouterr().out


def test_what_cannot_be_solved(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Path) -> None:
    def said(make: Callable[[], object]) -> str:
        with pytest.raises(UserError) as error:
            make()
        return str(error.value)

    file = tmp_path / "bad.jsonl"
    for content, wanted in (
        ("", "No task"),
        ("{", "line 1: not JSON"),
        ("[1]", "neither an object"),
        ("{}", "test_list"),
    ):
        file.write_text(content)
        assert wanted in said(lambda: read_tasks(file))
    assert "cannot be read" in said(lambda: read_tasks(tmp_path / "none.jsonl"))
    file.with_suffix(".gz").write_bytes(b"no gzip")
    assert "cannot be read" in said(lambda: read_tasks(file.with_suffix(".gz")))
    monkeypatch.setattr("afresh.domains.code.solve.MAX_MB", 1)
    file.with_suffix(".gz").write_bytes(gzip.compress(b" " * 2_000_000))
    assert "more than 1 MB when decompressed" in said(lambda: read_tasks(file.with_suffix(".gz")))
    file.write_text("1" * 5000)
    assert "more than 4,300 digits" in said(lambda: read_tasks(file))
    assert "-n 0" in said(lambda: solve_tasks(run, tasks, 0))
    monkeypatch.setattr("sys.platform", "darwin")
    assert "sandbox is not available" in said(lambda: solve_tasks(run, tasks))


def test_skips_have_a_reason() -> None:
    assert needs.WHY_NO_SANDBOX is None or "sandbox is not available" in needs.WHY_NO_SANDBOX
