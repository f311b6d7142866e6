"""Saving beside training: what is written is the state of its step, and no failure is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import torch

from afresh.core import UserError
from afresh.engine.training import checkpoint, checkpoint_saver
from afresh.engine.training.checkpoint import Checkpoint
from afresh.engine.training.checkpoint_saver import CheckpointSaver
from tests.heard import heard

save = checkpoint.save


def state(step: int) -> Checkpoint:
    return Checkpoint(step, {"model": {"w": torch.full((4,), float(step))}}, {"note": step})


@contextmanager
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Nothing is written before the event is set."""
    go = Event()

    def slow(root: Path, now: Checkpoint, rotating: bool = True) -> Path:
        assert go.wait(600)
        return save(root, now, rotating)

    monkeypatch.setattr(checkpoint, "save", slow)
    try:
        yield go
    finally:
        go.set()


def fail(root: Path, now: Checkpoint, rotating: bool = True) -> Path:
    raise UserError(f"Could not write step {now.step}", "cannot_write")


def test_what_training_changes_meanwhile_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, now = tmp_path / "checkpoints", state(3)
    with CheckpointSaver(root) as saver, held_back(monkeypatch) as go:
        saver.save(now)
        saver.check()  # nothing has ended, and nothing waits
        now.tensors["model"]["w"].fill_(7.0)
        assert checkpoint.steps_in(root) == []
        go.set()
        saver.wait()
    found = checkpoint.newest(root)
    assert found is not None and found.tensors["model"]["w"].tolist() == [3.0] * 4


def test_one_is_written_at_a_time_and_each_is_announced(tmp_path: Path) -> None:
    announced, names = list[str](), [f"{step:06d}" for step in range(5)]
    with CheckpointSaver(tmp_path / "checkpoints", lambda folder: announced.append(folder.name)) as saver:
        for step in range(5):
            saver.save(state(step))
            seen = list(announced)
            assert seen in (names[:step], names[: step + 1])
    assert announced == names and not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize("free", [None, 20.0])
def test_a_save_that_does_not_rotate_leaves_older_ones(
    free: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a thread or the step itself writes it, which has no memory for a copy."""
    monkeypatch.setattr(checkpoint_saver, "available_memory", lambda: free)
    root = tmp_path / "checkpoints"
    with CheckpointSaver(root) as saver:
        for step in range(5):
            saver.save(state(step), rotating=False)
        saver.wait()
        assert checkpoint.steps_in(root) == [f"{step:06d}" for step in range(5)]
        saver.save(state(5))
    assert checkpoint.steps_in(root) == ["000004", "000005"]


@pytest.mark.parametrize("how", ["the next save", "a check after it ended", "the end"])
def test_a_failure_is_raised(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "checkpoints", state(1))
    monkeypatch.setattr(checkpoint, "save", fail)
    with pytest.raises(UserError, match="Could not write step 5"), CheckpointSaver(tmp_path / "checkpoints") as saver:
        saver.save(state(5))
        if how == "the next save":
            saver.save(state(6))
        elif how == "a check after it ended":
            assert saver.thread is not None
            saver.thread.join()
            saver.check()
    found = checkpoint.newest(tmp_path / "checkpoints")
    assert found is not None and found.step == 1


def test_what_ended_training_comes_before_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "save", fail)
    with heard("Could not write step 5"), pytest.raises(ZeroDivisionError), CheckpointSaver(tmp_path) as saver:
        saver.save(state(5))
        raise ZeroDivisionError


def test_without_memory_for_a_copy_the_step_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_saver, "available_memory", lambda: 20.0)
    with CheckpointSaver(tmp_path / "checkpoints") as saver:
        saver.save(state(5))
        assert saver.thread is None and checkpoint.steps_in(tmp_path / "checkpoints") == ["000005"]


@pytest.mark.parametrize(("free", "beside"), [(31.0, False), (32.0, True), (None, True)])
def test_a_copy_is_made_where_memory_is_free_for_two(
    free: float | None, beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state has 4 numbers of 4 bytes; without a copy, it is written before training goes on."""
    monkeypatch.setattr(checkpoint_saver, "available_memory", lambda: free)
    with CheckpointSaver(tmp_path / "checkpoints") as saver:
        saver.save(state(1))
        assert (saver.thread is not None) is beside
