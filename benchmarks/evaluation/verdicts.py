"""Verdicts on models that were made to deserve each word, for every kind of data, three seeds.

    python -m benchmarks verdicts [KIND ...]

What a model draws, or foresees, is made of real data (`tests.engine.evaluation.deserved`) and judged by all metrics on
as many samples as `afresh measure` draws. Prints, for each kind, what was said of each word, and the share that was
right.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.engine.evaluation.deserved import MAKERS, Splits, judged, learners

from afresh.core import Item
from afresh.data.prepare import Prepared, prepare
from afresh.domains.molecule import metrics as molecule_metrics
from afresh.domains.text import metrics as text_metrics
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.results import Row, save

SEEDS = (0, 1, 2)
NEEDED = 0.9  # share of verdicts that two readers of the samples would give
UNSEEN = 10  # every so many training items is kept apart, as what a perfect model draws
MOLECULES = 12_000
SAMPLES = {"molecule": 500, "image": 200, "audio": 64}  # that a measurement draws; 32 otherwise


def folder_of(kind: str, out: Path) -> tuple[Path, str, dict[str, object]]:
    """The data of a kind, written to a folder, its modality and options."""
    data = data_folder()
    if kind == "text":
        return data / "tinyshakespeare" / "input.txt", "text", {}
    if kind == "code":
        root = Path(random.__file__).parent
        (out / "code").mkdir()
        for path in sorted(root.glob("*.py"))[:90]:
            (out / "code" / path.name).write_bytes(path.read_bytes())
        return out / "code", "code", {}
    if kind == "conversations":
        packed = (data / "instructions" / "instruction_data_1100.jsonl.gz").read_bytes()
        (out / "chat.jsonl").write_bytes(gzip.decompress(packed))
        return out / "chat.jsonl", "text", {}
    if kind == "image":
        with zipfile.ZipFile(data / "emoji_twitter64" / "images.zip") as z:
            z.extractall(out / "emoji")
        return out / "emoji", "image", {"size": 32}
    if kind == "audio":
        with zipfile.ZipFile(data / "spoken_digits_fsdd" / "fsdd_george.zip") as z:
            z.extractall(out / "digits")
        return out / "digits", "audio", {}
    if kind == "music":
        with zipfile.ZipFile(data / "music_nottingham" / "abc_cleaned.zip") as z:
            z.extractall(out / "tunes")
        return out / "tunes", "music", {}
    if kind == "molecule":
        with gzip.open(data / "molecules_moses" / "moses_train_300k.csv.gz", "rt") as stream:
            rows = [r["SMILES"] for _, r in zip(range(MOLECULES), csv.DictReader(stream), strict=False)]
        (out / "molecules.csv").write_text("\n".join(["SMILES", *rows, ""]))
        return out / "molecules.csv", "molecule", {}
    with gzip.open(data / "interactions_s3rec" / "LastFM.txt.gz", "rt") as stream:
        lines = [line.split() for line in stream]
    rows = [f"u{u},i{i},{1_600_000_000 + 60 * t}" for u, *items in lines for t, i in enumerate(items)]
    (out / "log.csv").write_text("\n".join(["user,item,time", *rows, ""]))
    return out / "log.csv", "interactions", {}


def splits_of(kind: str, out: Path) -> Splits:
    if kind == "exercises":
        from afresh.domains.exercises.encoder import fit_answers

        found = learners(400, 60, 7)
        return Splits(fit_answers(found[:300], 300, 1, {}, 100), found[:300], found[300:], found[300:])
    path, modality, options = folder_of(kind, out)
    made: Prepared = prepare(path, modality, options)
    train = list(made.train_items)
    if kind == "text":  # one document: its end is kept apart
        value = str(train[0].value)
        end = len(value) * 9 // 10
        return Splits(made.encoder, [Item(value[:end])], made.heldout_items, [Item(value[end:])])
    if kind == "interactions":
        return Splits(made.encoder, train, made.heldout_items, ())
    rest = [i for n, i in enumerate(train) if n % UNSEEN]
    return Splits(made.encoder, rest, made.heldout_items, train[::UNSEEN])


def verdicts(kind: str) -> Iterator[tuple[str, str, str, float]]:
    """(deserved, said, sentence, seconds) of each model."""
    with tempfile.TemporaryDirectory() as folder:
        splits = splits_of(kind, Path(folder))
        n = SAMPLES.get(kind, 32)
        for seed in SEEDS:
            for word, models in MAKERS[kind](splits, seed, n).items():
                for model in models:
                    begun = time.monotonic()
                    found, _ = judged(splits, model, n, Path(folder))
                    yield word, found.word, found.sentence, time.monotonic() - begun


def main(*kinds: str) -> None:
    for name in ("lzma_size", "lzma_after", "gzip_size"):  # take a minute for each model, and are always the same
        setattr(text_metrics, name, cache(getattr(text_metrics, name)))
    active = cache(molecule_metrics.activations)
    molecule_metrics.activations = lambda molecules: active(tuple(molecules))
    rows = []
    for kind in kinds or MAKERS:
        table, right, total = Counter[tuple[str, str]](), 0, 0
        for deserved, said, sentence, seconds in verdicts(kind):
            table[deserved, said] += 1
            total += 1
            right += deserved == said
            mark = "" if deserved == said else "  <--"
            print(f"{kind:13} {deserved:12} {said:12} {seconds:5.1f} s  {sentence}{mark}", flush=True)
        print(f"{kind}: {right} of {total}; " + json.dumps({f"{a} as {b}": n for (a, b), n in table.items() if a != b}))
        rows.append(
            Row(
                f"verdicts on {kind}",
                "share as deserved",
                f"{right / total:.2f}",
                goal=f"at least {NEEDED}",
                reached=right >= NEEDED * total,
                n=str(total),
            )
        )
    if not kinds:
        save("verdicts", rows)


BENCHMARKS = (
    Benchmark(
        "verdicts",
        (
            "tinyshakespeare",
            "instructions",
            "emoji_twitter64",
            "spoken_digits_fsdd",
            "music_nottingham",
            "molecules_moses",
            "interactions_s3rec",
        ),
        30,
        main,
    ),
)
