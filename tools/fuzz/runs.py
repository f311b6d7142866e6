"""Tiny runs of different kinds, each stopped one step before its end, so that there is something to resume."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image
from tests.contracts.rows import write_answers, write_histories, write_molecules, write_sounds, write_tunes

from afresh.faces.cli import run
from afresh.runs import latent_space

IMAGES, TEXTS = ("@pictures", "--family"), ("@texts", "--data", "context=32", "--family")
SOUNDS = ("@sounds", "--data", "seconds=0.05", "--data", "trim=false", "--data")
SMALL = ("--set", "family.layers=1", "--set", "family.width=32")
TINY = ("--set", "family.width=16", "--set", "family.blocks=1")
TRAINED = {
    "flow": (*IMAGES, "flow", "--set", "family.widths=[8,16]"),
    "gan": (*IMAGES, "gan", "--set", "family.width=8"),
    "vae": (*IMAGES, "vae", "--set", "family.width=8"),
    "autoencoder": (*IMAGES, "autoencoder", "--set", "family.width=8"),
    "transformer": (*TEXTS, "transformer", *SMALL),
    "masked": (*TEXTS, "masked", *SMALL),
    "palette": (*IMAGES, "transformer", *SMALL),
    "sentences": (*TEXTS, "vae", *TINY),
    "waves": (*SOUNDS, "representation=wave", "--family", "flow", "--set", "family.widths=[8]"),
    "mels": (*SOUNDS, "representation=mel", "--family", "gan", "--set", "family.width=8"),
    "tunes": ("@scores", "--data", "context=32", "--family", "transformer", *SMALL),
    "answers": ("@learners", "--data", "context=80", "--data", "least=1", "--family", "transformer", *SMALL),
    "choices": ("@users", "--data", "context=16", "--data", "split=user", "--family", "transformer", *SMALL),
    "bags": ("@users", "--data", "context=16", "--data", "split=user", "--family", "vae", "--set", "family.width=16"),
    "smiles": ("@molecules", "--family", "transformer", *SMALL),
    "latents": ("@molecules", "--family", "vae", *TINY),
}
LENGTH = ("--reward", "length", "--length", "4", "--method")
BRIGHT = ("--reward", "brightness", "--method")
MADE = {  # of other runs: the verb and its arguments, of which @NAME is in the folder of the runs
    "latent": ("train", *IMAGES, "flow", "--set", "family.widths=[8]", "--codec", "@autoencoder"),
    "adapted": ("tune", "@transformer", "@texts"),
    "tuned": ("tune", "@transformer", "@texts", "--full"),
    "distilled": ("distill", "@flow"),
    "grpo": ("align", "@transformer", *LENGTH, "grpo", "--set", "align.group=4"),
    "reinforce": ("align", "@transformer", *LENGTH, "reinforce", "--set", "align.group=4", "--lora"),
    "ppo": ("align", "@transformer", *LENGTH, "ppo", "--set", "align.reuse=1"),
    "draft": ("align", "@gan", *BRIGHT, "draft"),
    "nft": (
        "align",
        "@flow",
        *BRIGHT,
        "nft",
        *(f"--set={s}" for s in ("sample.steps=2", "align.reuse=1", "align.group=4")),
    ),
}
COMMON = ("--steps", "3", "--no-measure", "--set", "train.batch=8", "--set", "train.save_every=1", "--out")
EVALUATED = ("--set", "train.early=0.5", "--set", "train.eval_every=1")
RUNS = (*TRAINED, *MADE)


def make_runs(folder: Path, names: Sequence[str] = RUNS) -> None:
    """Make these runs in a folder, and those that they are made of, as far as they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for data, write in DATA.items():
        if not (folder / data).is_dir():
            (folder / data).mkdir()
            write(folder / data)
    for name in names:
        if (folder / name).is_dir():
            continue
        make_runs(folder, [w[1:] for w in MADE.get(name, ()) if w[1:] in RUNS and w[0] == "@"])
        made = folder / f"{name}-made"
        shutil.rmtree(made, ignore_errors=True)
        with patch.object(latent_space, "WORST", 100.0):  # of the codec, which has learnt nothing
            assert run(command(folder, name, made)) == 0, name
        newest = max((made / "checkpoints").iterdir())
        if newest.name != "000001":
            shutil.rmtree(newest)
        (made / "latest").write_text(max((made / "checkpoints").iterdir()).name + "\n")
        made.rename(folder / name)


def command(folder: Path, name: str, out: Path) -> list[str]:
    words = ("train", *TRAINED[name], *EVALUATED) if name in TRAINED else MADE[name]
    return [str(folder / w[1:]) if w[0] == "@" else w for w in words] + [*COMMON, str(out)]


def write_texts(folder: Path) -> None:
    draw = random.Random(1)
    for i in range(40):
        words = draw.choices(["the", "cat", "sat", "on", "a", "mat", "and", "slept"], k=40)
        (folder / f"{i:02d}.txt").write_text(" ".join(words) + ".\n")


def write_pictures(folder: Path) -> None:
    for i in range(40):
        (folder / f"c{i % 3}").mkdir(exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(noise).save(folder / f"c{i % 3}" / f"{i:02d}.png")


DATA = {  # of TRAINED, by the folder that it is written into
    "texts": write_texts,
    "pictures": write_pictures,
    "sounds": write_sounds,
    "scores": write_tunes,
    "learners": write_answers,
    "users": write_histories,
    "molecules": write_molecules,
}
