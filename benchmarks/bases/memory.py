"""The memory that the plan of tuning says before the first step, beside the most that the process then takes:
`python -m benchmarks.bases.memory FOLDER` tunes as FOLDER/ask.json says.

A language model in the shape of SmolLM2-135M, in float32 and in few bits, and a Stable Diffusion of 40 million
parameters, with random weights. Evaluations, a preview, checkpoints and the adapter at the end are in the peak.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from PIL import Image
from tests.peak import peak_memory

from afresh.engine.nets.frozen_linear import KINDS
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from benchmarks.bases.shapes import SHAPES, write_base
from benchmarks.common.processes import answer, ask
from benchmarks.common.results import Row

WITHIN = 0.15
PAUSE = 0.05  # seconds between looks at the peak, which the planner resets
SIDE = 32  # of images


@dataclass(frozen=True)
class Ask:
    """`words`: those of `afresh tune` that follow the base and the data."""

    base: str
    data: str
    words: list[str]


@contextmanager
def highest_memory() -> Iterator[Callable[[], int]]:
    """Within the block, what this returns is the most memory that the process has held since its beginning."""
    done, most = Event(), [0]

    def look() -> None:
        most[0] = max(most[0], peak_memory())

    def watch() -> None:
        while not done.wait(PAUSE):
            look()

    watching = Thread(target=watch, daemon=True)
    watching.start()

    def highest() -> int:
        look()
        return most[0]

    try:
        yield highest
    finally:
        done.set()
        watching.join()


def tune(ask: Ask, folder: Path) -> dict[str, Any]:
    """The gigabytes that the plan says, and the most that the process took."""
    out = folder / "run"
    with highest_memory() as highest:
        code = command(["tune", ask.base, ask.data, *ask.words, "--out", str(out), "--no-measure"])
        most = highest()
    if code:
        raise SystemExit(code)
    said = next(value for name, value, _ in Run.open(out).record.decisions if name == "memory")
    return {"said": float(said.split()[1]), "most": most / 1e9}


def texts(folder: Path) -> Path:
    """Texts of words drawn at random."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    words = np.array(["the", "cat", "sat", "on", "a", "mat", "and", "dogs", "ran", "far", "away"])
    for i in range(24):
        (folder / f"{i}.txt").write_text(" ".join(draw.choice(words, 150)) + ".\n")
    return folder


def images(folder: Path) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("a red dot")
    return folder


def write_pipeline(folder: Path) -> Path:
    """The tiny pipeline of the tests with a U-Net of 40 million parameters, most of which are in 3x3 convolutions."""
    import diffusers
    import torch
    from tests.runs.formats.tiny_pipelines import stable_diffusion

    torch.manual_seed(0)
    pipe = stable_diffusion()
    pipe.register_modules(
        unet=diffusers.UNet2DConditionModel(
            sample_size=SIDE // 2,
            block_out_channels=(128, 512),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=8,
        )
    )
    pipe.save_pretrained(folder)
    return folder


def row(what: str, found: dict[str, Any]) -> Row:
    ratio = found["said"] / found["most"]
    shown = f"{found['said']:.2f} GB", f"{found['most']:.2f} GB"
    reached = abs(ratio - 1) <= WITHIN
    return Row("memory of LoRA, said before the first step", what, *shown, ratio, "0.85 to 1.15", reached, "1 run")


def rows() -> list[Row]:
    kinds = ("float32", *KINDS) if find_spec("bitsandbytes") is not None else ("float32",)
    if len(kinds) == 1:
        print("int8 and nf4 are left out: pip install bitsandbytes", flush=True)
    quick = ["--steps", "2", "--set", "train.precision=float32"]
    made: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        base, data = write_base(root / "base", SHAPES["SmolLM2-135M"]), texts(root / "texts")
        words = [*quick, "--data", "context=256", "--set", "train.batch=4"]
        for kind in kinds:
            asked = Ask(str(base), str(data), [*words, "--set", f"train.frozen={kind}"])
            found = ask("benchmarks.bases.memory", asked, root / kind, threads=1)
            made.append(row(f"SmolLM2-135M's shape, {kind}, micro-batches of 4 x 256 tokens", found))
        asked = Ask(str(write_pipeline(root / "pipeline")), str(images(root / "images")), quick)
        asked.words.extend(["--data", f"size={SIDE}"])
        found = ask("benchmarks.bases.memory", asked, root / "text_to_image", threads=1)
        made.append(row(f"Stable Diffusion of 40M parameters, {SIDE} pixels", found))
    return made


if __name__ == "__main__":
    answer(Ask, tune)
