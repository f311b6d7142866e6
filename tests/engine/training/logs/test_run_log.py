"""A log that fails is left out; training goes on, and the others are told everything."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from afresh.core import Sound, UserError
from afresh.engine.training.logs import run_log
from afresh.engine.training.logs.run_log import RunLog, Training, check_logs, opened
from tests.heard import heard


class Told:
    """A log that keeps what it is told, and fails at a step."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at, self.steps, self.closed = fails_at, list[int](), False

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise ConnectionError("no network\nhere")
        self.steps.append(step)

    def image(self, step: int, pixels: np.ndarray) -> None: ...
    def sound(self, step: int, number: int, sound: Sound) -> None: ...
    def text(self, step: int, number: int, text: str) -> None: ...
    def close(self) -> None:
        self.closed = True


def module(monkeypatch: pytest.MonkeyPatch, name: str, log: RunLog | None) -> None:
    """A log of this name, which cannot be opened if it is None."""

    def start(training: Training) -> RunLog:
        if log is None:
            raise RuntimeError("not logged in")
        return log

    made = ModuleType(name)
    made.start = start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"afresh.engine.training.logs.{name}", made)


def test_a_log_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good, bad = Told(), Told(fails_at=2)
    for name, log in {"good": good, "bad": bad, "closed": None}.items():
        module(monkeypatch, name, log)
    with heard() as events, opened(("good", "bad", "closed", "good"), Training("run", tmp_path, {}, 0)) as logs:
        for step in range(4):
            logs.each(lambda log, step=step: log.scalars(step, {"loss": 1.0}))  # type: ignore[misc]
    assert (good.steps, good.closed) == ([0, 1, 2, 3], True) and (bad.steps, bad.closed) == ([0, 1], False)
    warned = [e.text for e in events if e.code == "log_failed"]
    assert len(warned) == 2 and "RuntimeError: not logged in" in warned[0]
    assert "The log bad failed and is left out; training goes on. ConnectionError: no network here" in warned[1]


def test_logs_are_closed_after_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = Told()
    module(monkeypatch, "good", log)
    with pytest.raises(KeyError), opened(("good",), Training("run", tmp_path, {}, 0)):
        raise KeyError
    assert log.closed


def test_an_unknown_log_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"No log 'tensorbord'. Known: tensorboard, trackio, wandb"):
        check_logs(["tensorbord"])
    monkeypatch.setattr(run_log, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'afresh\[logging\]'"):
        check_logs(["wandb"])
