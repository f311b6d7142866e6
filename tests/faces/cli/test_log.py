"""`--log`: TensorBoard finds the curves of the run and its previews."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import afresh
from tests.faces.cli.conftest import AT_THE_END, FLOW, WORDS, Invoke


def logged(run: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return read


def test_the_curves_of_a_training_are_logged(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = tmp_path / "run"
    argv = ("train", texts, "--steps", 4, "--out", run, "--no-measure", *AT_THE_END, *WORDS)
    code, _, err = invoke(*argv, "--log", "tensorboard")
    assert code == 0, err
    read, rows = logged(run), [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "heldout_loss"):
        expected = [(r["step"], pytest.approx(r[name])) for r in rows if name in r]
        assert [(e.step, e.value) for e in read.Scalars(name)] == expected
    assert "samples/0/text_summary" in read.Tags()["tensors"]
    assert str(texts) not in read.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert invoke("rm", run, "--yes")[0] == 0 and not run.exists(), "the log is of the run"


def test_from_python_and_with_images(digits: Path, tmp_path: Path) -> None:
    settings = {"family.widths": [8, 16], "train.batch": 16, "train.preview_every": 2}
    run = tmp_path / "run"
    afresh.train(digits, family="flow", steps=2, out=run, settings=settings, log="tensorboard", quiet=True)
    assert [image.step for image in logged(run).Images("samples")] == [2]


def test_an_unknown_log_is_refused_before_anything_is_spent(digits: Path, tmp_path: Path, invoke: Invoke) -> None:
    argv = ("train", digits, "--steps", 1, "--out", tmp_path / "run", *FLOW)
    code, _, err = invoke(*argv, "--log", "tensorbord")
    assert (
        code == 2 and "Known: tensorboard, trackio, wandb" in " ".join(err.split()) and not (tmp_path / "run").exists()
    )
