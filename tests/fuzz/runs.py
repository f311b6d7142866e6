"""Tiny runs of different kinds, each stopped one step before its end, so that there is something to resume."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from afresh.cli import run

RUNS = ("flow", "transformer", "tuned", "gan", "masked", "autoencoder", "vae", "aligned")
SETTINGS = {
    "flow": ("pictures", "--set", "family.widths=[8,16]", "--family", "flow"),
    "gan": ("pictures", "--set", "family.width=8", "--family", "gan"),
    "vae": ("pictures", "--set", "family.width=8", "--family", "vae"),
    "autoencoder": ("pictures", "--set", "family.width=8", "--family", "autoencoder"),
    "transformer": ("texts", "--set", "family.layers=1", "--set", "family.width=32", "--data", "context=32"),
    "masked": ("pictures", "--family", "masked", "--set", "family.layers=1", "--set", "family.width=48"),
}


def make_runs(folder: Path) -> None:
    """Make the runs of RUNS in a folder, as far as they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "texts").is_dir():
        write_data(folder)
    for name in RUNS:
        if (folder / name).is_dir():
            continue
        made = folder / f"{name}-made"
        shutil.rmtree(made, ignore_errors=True)
        assert run(command(folder, name, made)) == 0, name
        newest = max((made / "checkpoints").iterdir())
        if newest.name != "000001":
            shutil.rmtree(newest)
        (made / "latest").write_text(max((made / "checkpoints").iterdir()).name + "\n")
        made.rename(folder / name)


def command(folder: Path, name: str, out: Path) -> list[str]:
    common = [
        "--steps",
        "3",
        "--no-measure",
        "--out",
        str(out),
        "--set",
        "train.batch=8",
        "--set",
        "train.save_every=1",
    ]
    text = str(folder / "transformer")
    if name == "tuned":
        return ["tune", text, str(folder / "texts"), *common]
    if name == "aligned":
        more = ["--method", "grpo", "--reward", "length", "--length", "4", "--set", "align.group=4"]
        return ["align", text, *more, *common]
    data, *more = SETTINGS[name]
    return ["train", str(folder / data), *more, "--set", "train.early=0.5", "--set", "train.eval_every=1", *common]


def write_data(folder: Path) -> None:
    draw = random.Random(1)
    for i in range(40):
        texts = folder / "texts"
        texts.mkdir(exist_ok=True)
        words = draw.choices(["the", "cat", "sat", "on", "a", "mat", "and", "slept"], k=40)
        (texts / f"{i:02d}.txt").write_text(" ".join(words) + ".\n")
        pictures = folder / "pictures" / f"c{i % 3}"
        pictures.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(noise).save(pictures / f"{i:02d}.png")
