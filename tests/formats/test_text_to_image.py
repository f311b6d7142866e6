"""Text-to-image pipelines of diffusers: the same images, the same losses, adapters that open there, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from afresh.cli import run as command
from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.runs.base_model import open_base_model
from afresh.runs.run import Run
from afresh.sampling.request import Request
from afresh.verbs.export_pipeline import drawn_by_diffusers
from tests.formats.tiny_pipelines import PIPELINES, SIDE, saved

pytestmark = pytest.mark.slow

TEXT, GUIDANCE, STEPS = "a red dot", 3.0, 3
every_kind = pytest.mark.parametrize("kind", PIPELINES)


def pictures(folder: Path, count: int = 8) -> Path:
    """Bars of two colours at several heights, with captions beside them."""
    folder.mkdir()
    for i in range(count):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[..., 2 * (i % 2)] = 200
        pixels[i : i + 4] = 255
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(("a red dot", "blue square")[i % 2])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("bases")

    def base(kind: str) -> Path:
        return root / kind if (root / kind).exists() else saved(root / kind, kind)

    return base


@pytest.fixture(scope="module")
def tuned(bases: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs that have learnt for two steps, with adapters that are not zero."""
    root = tmp_path_factory.mktemp("runs")

    def run(kind: str) -> Run:
        out = root / kind
        if not out.exists():
            quick = ["--data", f"size={SIDE}", "--set", "train.lr=0.01", "--set", "train.preview_every=1000"]
            command(["tune", str(bases(kind)), str(data), "--steps", "2", "--out", str(out), "--no-measure", *quick])
        return Run.open(out)

    return run


def opened(base: Path) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(base, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image_of(run: Run, caption: str = TEXT) -> Tensor:
    cond = run.condition(1, Request(prompt=caption), 0)[0]
    return run.draw(run.modules, cond, 0, run.settings({"steps": STEPS, "guidance": GUIDANCE})).clamp(-1, 1)


@every_kind
def test_an_adapter_opens_in_diffusers_and_draws_the_same_image(kind: str, tuned: Any, bases: Any) -> None:
    run = tuned(kind)
    pipe = opened(bases(kind))
    before = drawn_by_diffusers(pipe, run, TEXT, STEPS, GUIDANCE)
    pipe.load_lora_weights(str(run.path / "adapter"))
    after = drawn_by_diffusers(pipe, run, TEXT, STEPS, GUIDANCE)
    torch.testing.assert_close(image_of(run), after, atol=1e-3, rtol=0)
    assert float((after - before).abs().max()) > 0.01
