"""What an adapter of a person is worth on items of that person that it has not seen: `python -m benchmarks adapters`.

The base learns from other people. Each person's adapter learns from some of that person's items, a fixed number of
steps with the planner's own rate, and is watched by a tenth of them; the items that count are others. They are scored
under the base, the person's own adapter, each of the other persons' adapters, their mean (weights that sum to 1), and
one adapter that learnt from all persons together in as many steps. Texts: bits a byte of a Transformer over characters;
images and sounds: the error of a flow's velocity, with the same noise for all. Everything is made again for each seed.
"""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import afresh
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.data.load import sweep
from afresh.data.prepare import Prepared
from afresh.data.storage.files import bytes_on_disk
from afresh.engine.training.checkpoint import steps_in
from afresh.runs.adapters import with_adapters
from afresh.runs.data import run_data
from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.results import Row, save

SEEDS = (0, 1, 2)
NOISES = 4  # draws of noise and time for each held-out image or sound
EVERYONE = "everyone"
BESIDE = {
    "base": "the base",
    "other": "another person's adapter",
    "mean": "the mean of the others' adapters",
    EVERYONE: "one adapter for all persons",
}


@dataclass(frozen=True)
class Kind:
    """Data of persons. `make(source, folder)` writes folder/base, and NAME/learn and NAME/test of each."""

    name: str
    unit: str
    make: Callable[[Path, Path], Sequence[str]]
    family: str
    steps: int
    tuning: int
    settings: Mapping[str, Any]
    data: Mapping[str, Any]


def texts(source: Path, folder: Path) -> Sequence[str]:
    """Persons are authors: 60,000 characters of a book are learnt, and 30,000 from its second half are scored."""
    books = {"carroll": "alice_in_wonderland", "doyle": "sherlock_holmes", "stevenson": "jekyll_and_hyde"}
    others = ("frankenstein", "tom_sawyer", "grimms_fairy_tales", "pride_and_prejudice")
    with zipfile.ZipFile(source / "gutenberg_books" / "books.zip") as packed:
        for name in others:
            (folder / "base").mkdir(parents=True, exist_ok=True)
            (folder / "base" / f"{name}.txt").write_bytes(packed.read(f"{name}.txt")[:300_000])
        for person, name in books.items():
            text = packed.read(f"{name}.txt").decode()
            middle = len(text) // 2
            for part, piece in (("learn", text[2_000:62_000]), ("test", text[middle : middle + 30_000])):
                (folder / person / part).mkdir(parents=True)
                (folder / person / part / "text.txt").write_text(piece)
    return tuple(books)


def faces(source: Path, folder: Path) -> Sequence[str]:
    """Ten photographs of each person, at 16x16: seven are learnt and three scored; the base learns 29 other people."""
    found = np.load(source / "faces_orl64" / "faces_orl64.npz")
    persons = list(range(30, 33))
    for subject in range(1, 33):
        own = found["x"][found["subject"] == subject]
        for i, pixels in enumerate(own):
            place = folder / "base"
            if subject in persons:
                place = folder / f"person{subject}" / ("learn" if i < 7 else "test")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((16, 16), Image.Resampling.BOX).save(place / f"{subject}-{i}.png")
    return tuple(f"person{p}" for p in persons)


def voices(source: Path, folder: Path) -> Sequence[str]:
    """Spoken digits: 20 of each digit are learnt and the usual test split (indexes 0 to 4) scored; one other speaker is
    the base."""
    persons = ("jackson", "nicolas", "theo")
    for speaker in ("george", *persons):
        with zipfile.ZipFile(source / "spoken_digits_fsdd" / f"fsdd_{speaker}.zip") as packed:
            for name in packed.namelist():
                index = int(name.removesuffix(".wav").rpartition("_")[2])
                part = "test" if index < 5 else "learn"
                if speaker in persons and index >= 25:
                    continue
                place = folder / "base" if speaker not in persons else folder / speaker / part
                place.mkdir(parents=True, exist_ok=True)
                (place / Path(name).name).write_bytes(packed.read(name))
    return persons


SMALL = {"train.compile": False, "train.precision": "float32", "train.preview_every": 1_000_000}
TEXT = {"family.width": 64, "family.layers": 2, "family.heads": 2, "family.kv_heads": 2, "train.batch": 8, **SMALL}
FLOW = {"family.widths": [8, 16], "train.batch": 16, **SMALL}
KINDS = (
    Kind("authors", "bits a byte", texts, "transformer", 300, 80, TEXT, {"context": 128}),
    Kind("faces", "velocity error", faces, "flow", 300, 60, FLOW, {"size": 16}),
    Kind("speakers", "velocity error", voices, "flow", 100, 40, FLOW, {}),
)


@torch.no_grad()
def loss(run: Run, modules: Mapping[str, nn.Module], prepared: Prepared) -> float:
    """Bits a byte of texts; of images and sounds the mean loss of the objective over all items and draws of noise."""
    objective = run.family.objective(run.config, run.space)
    player, total, count = next(iter(objective.players)), 0.0, 0.0
    stream = run.space.stream
    for batch in sweep(prepared.heldout, run.training_space, 16):
        for noise in range(1 if stream else NOISES):
            moved = replace(batch, index=batch.index + 10_000 * noise)
            value, weight, _ = objective.loss(modules, moved, player, 0, Rng(0), {})
            total, count = total + float(value), count + float(torch.as_tensor(weight))
    return total / math.log(2) / prepared.heldout.bytes if stream else total / count


def measured(kind: Kind, source: Path, folder: Path, seed: int) -> tuple[list[dict[str, float]], dict[str, int]]:
    """For each person the loss under each model; and bytes of the base's weights, of an adapter's, and on the disk."""
    persons = kind.make(source, folder / "data")
    root = folder / "base"
    settings = {"steps": kind.steps, "seed": seed, "settings": kind.settings, "data": kind.data, "quiet": True}
    base = afresh.train(folder / "data" / "base", family=kind.family, out=root, **settings).run  # type: ignore[arg-type]
    together = folder / "data" / EVERYONE
    for person in persons:
        shutil.copytree(folder / "data" / person / "learn", together / person)
    for name in (*persons, EVERYONE):
        data = together if name == EVERYONE else folder / "data" / name / "learn"
        settings = {"steps": kind.tuning, "seed": seed, "quiet": True, "settings": SMALL}
        if kind.data.get("context"):
            settings["data"] = dict(kind.data)
        afresh.tune(root, data, adapter=name, **settings)  # type: ignore[arg-type]
    place = {name: root / "adapters" / name for name in (*persons, EVERYONE)}
    rows = []
    for person in persons:
        own = Run.open(place[person])
        prepared = run_data(own, folder / "data" / person / "test")
        others = [p for p in persons if p != person]
        mean = {str(place[p]): 1 / len(others) for p in others}
        each = [loss(own, with_adapters(base, {str(place[p]): 1.0}), prepared) for p in others]
        rows.append(
            {
                "own": loss(own, own.modules, prepared),
                "base": loss(own, base.modules, prepared),
                "other": statistics.fmean(each),
                "mean": loss(own, with_adapters(base, mean), prepared),
                EVERYONE: loss(own, with_adapters(base, {str(place[EVERYONE]): 1.0}), prepared),
            }
        )
        shown = ", ".join(f"{k} {v:.4f}" for k, v in rows[-1].items())
        print(f"{kind.name}, seed {seed}, {person}: {shown}", flush=True)
    one = place[persons[0]]
    learnt = one / "checkpoints" / steps_in(one / "checkpoints")[-1] / "model.safetensors"
    whole = root / "checkpoints" / steps_in(root / "checkpoints")[-1] / "model.safetensors"
    sizes = {"base": whole.stat().st_size, "adapter": learnt.stat().st_size, "folder": bytes_on_disk(one)}
    return rows, sizes


def table_rows(kind: Kind, found: Sequence[Mapping[str, float]], sizes: Mapping[str, float], seeds: int) -> list[Row]:
    """A row for each model beside a person's own adapter. The interval is of the mean difference over persons and
    seeds."""
    rows = []
    for beside, words in BESIDE.items():
        differences = [r["own"] - r[beside] for r in found]
        better, error = sum(d < 0 for d in differences), statistics.stdev(differences) / len(differences) ** 0.5
        ours, theirs = statistics.fmean(r["own"] for r in found), statistics.fmean(r[beside] for r in found)
        persons = len(found) // seeds
        what = f"{kind.name}, {kind.unit} on a person's unseen items: own adapter and {words}"
        n = (
            f"{persons} persons, {counted(seeds, 'seed')}: better for {better} of {len(found)}, by "
            f"{-statistics.fmean(differences):.4f} ± {error:.4f}; an adapter {sizes['adapter'] / 1e3:,.0f} KB, with "
            f"everything in its folder {sizes['folder'] / 1e3:,.0f} KB, the base {sizes['base'] / 1e3:,.0f} KB"
        )
        shown = f"{ours:.4f}", f"{theirs:.4f}"
        rows.append(Row("adapters", what, *shown, ours / theirs, "below 1", ours < theirs, n))
    return rows


def main(*names: str) -> None:
    source = data_folder()
    rows: list[Row] = []
    for kind in [k for k in KINDS if not names or k.name in names]:
        found: list[dict[str, float]] = []
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                made, sizes = measured(kind, source, Path(folder), seed)
            found += made
        rows += table_rows(kind, found, sizes, len(SEEDS))
        for row in rows[-len(BESIDE) :]:
            print(row, flush=True)
    if not names:
        save("adapters", rows)


BENCHMARKS = (Benchmark("adapters", ("gutenberg_books", "faces_orl64", "spoken_digits_fsdd"), 40, main),)
