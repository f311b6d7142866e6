"""What the library of each log reads back of what it was told. Nothing is sent anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afresh.core import Sound
from afresh.engine.training.logs.run_log import Training, opened
from tests.heard import silence

SOUND = Sound(np.sin(np.arange(2000, dtype=np.float32))[:, None] / 2, 8000)
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def told(name: str, training: Training, steps: range) -> None:
    """Everything that a training tells a log."""
    with silence(), opened((name,), training) as logs:
        for step in steps:
            logs.each(lambda log, step=step: log.scalars(step, {"loss": 1 / step, "heldout_loss": 2.0}))  # type: ignore[misc]
        logs.each(lambda log: log.image(steps[-1], PIXELS))
        logs.each(lambda log: log.sound(steps[-1], 0, SOUND))
        logs.each(lambda log: log.text(steps[-1], 0, "a # text\nof two lines"))


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    told("tensorboard", Training("run", tmp_path, {"family": "flow"}, 0), range(1, 5))
    told("tensorboard", Training("run", tmp_path, {}, 3), range(4, 6))  # killed after step 4, saved at step 3
    read = accumulator.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(s, pytest.approx(1 / s)) for s in range(1, 6)]
    assert set(read.Tags()["scalars"]) == {"loss", "heldout_loss"}
    image = read.Images("samples")[-1]
    assert (image.step, image.width, image.height) == (5, 4, 4)
    sound = read.Audio("samples/0")[-1]
    assert (sound.sample_rate, sound.length_frames) == (8000, 2000)
    texts = {t: read.Tensors(t)[0].tensor_proto.string_val[0].decode() for t in read.Tags()["tensors"]}
    assert texts["samples/0/text_summary"] == "    a # text\n    of two lines"
    assert '"family": "flow"' in texts["run/text_summary"]


def test_wandb_keeps_what_was_logged_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb, which is not among the packages of the tests: 75 MB")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    told("wandb", Training("run", tmp_path, {"family": "flow"}, 0), range(1, 4))
    first = (tmp_path / "wandb-id").read_text()
    told("wandb", Training("run", tmp_path, {}, 3), range(4, 5))
    assert (tmp_path / "wandb-id").read_text() == first, "a training that is resumed is the same run"
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == 2
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/images/*.png"))
    assert list((tmp_path / "wandb").rglob("media/audio/**/*.wav"))


def test_trackio_keeps_what_was_logged_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip(
        "trackio.sqlite_storage", reason="needs trackio, which is not among the packages of the tests: 60 MB"
    )
    told("trackio", Training("run", tmp_path, {"family": "flow"}, 0), range(1, 4))
    rows = storage.SQLiteStorage.get_logs("afresh", "run")
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert losses == [(step, pytest.approx(1 / step)) for step in range(1, 4)]
    assert list((tmp_path / "trackio").rglob("*.png")) and list((tmp_path / "trackio").rglob("*.wav"))
