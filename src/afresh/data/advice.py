"""Advice before training: counts of what in the data will affect the samples, each with what to do about it."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from afresh.core import Item, ItemKind
from afresh.core.counted import counted

FEW = 500  # items; a model soon memorises a smaller set
RARE = 20  # items of a class; a class with fewer is rare
IMBALANCE = 10.0  # size of the largest class divided by that of the smallest
MAX_RATIO = 3.0  # benchmarks whose number of images or minutes differ by more than this factor are not comparable
MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Advice:
    """One fact about the data: its kind, the number of items that it concerns, and a text with what to do."""

    kind: str
    count: int
    text: str


@dataclass(frozen=True)
class Facts:
    """What is known about the data before training. `near` and `crossing` are None if duplicates were not searched."""

    kind: ItemKind
    train: Sequence[Item]
    heldout: Sequence[Item]
    exact: int  # exact copies, which are left out
    near: int | None  # items that are near duplicates of an earlier one
    crossing: int | None  # held-out items that are near duplicates of a training item
    counts: Mapping[str, int]  # changes made while reading (core.Corpus)
    side: int | None = None  # of the images in pixels, as the model sees them
    minutes: float | None = None  # training budget, if known


class Measured(BaseModel):
    """One benchmark of this project: a family trained on a number of images for some time. A row of measured.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data: str
    kind: str = Field("image", description="name of the kind of items")
    images: int = Field(gt=0, description="images of the training split")
    side: int = Field(gt=0, description="height and width of the images in pixels")
    minutes: float = Field(gt=0)
    cores: int = Field(gt=0)
    family: str
    kid: float = Field(description="KID x 1000, in the features of an encoder that was not trained on this data")
    coverage: float = Field(ge=0, le=1)
    near_copies: float | None = Field(None, ge=0, le=1)


def measured() -> list[Measured]:
    """The benchmarks of this version. The list is empty if none have been run."""
    return TypeAdapter(list[Measured]).validate_python(json.loads(MEASURED.read_text("utf-8"))["rows"])


def advise(facts: Facts, rows: Sequence[Measured] | None = None) -> list[Advice]:
    """All advice that applies, in a fixed order. `rows` are benchmarks; None: those of this version."""
    advice = [*duplicate_advice(facts), *class_advice(facts.train)]
    if facts.kind.division is None:  # long items teach much, however few they are
        advice += size_advice(facts.train, facts.kind.plural)
    advice += flaw_advice([*facts.train, *facts.heldout], facts.kind)
    advice += resize_advice(facts)
    comparable = [r for r in (measured() if rows is None else rows) if r.kind == facts.kind.name]
    return [*advice, *family_advice(len(facts.train), facts.minutes, comparable)]


def _items_are(count: int) -> str:
    return "item is" if count == 1 else "items are"


def duplicate_advice(facts: Facts) -> list[Advice]:
    """Exact duplicates, near duplicates, and near duplicates on both sides of the split."""
    out = []
    if facts.exact:
        out.append(
            Advice(
                "exact duplicates",
                facts.exact,
                f"{counted(facts.exact, 'exact copy', 'exact copies')} left out: nothing to do",
            )
        )
    if facts.near:
        out.append(
            Advice(
                "near duplicates",
                facts.near,
                f"{facts.near:,} {_items_are(facts.near)} nearly the same as an earlier one. They are kept, so the "
                "model sees them more often than others and memorises them sooner. Remove those that are not intended "
                "(`afresh.inspect_data(PATH)` lists them)",
            )
        )
    if facts.crossing:
        out.append(
            Advice(
                "across the split",
                facts.crossing,
                f"{facts.crossing:,} of {len(facts.heldout):,} held-out {_items_are(facts.crossing)} nearly the same "
                "as a training item: held-out scores look better than they are, and copies of training items go "
                "unnoticed. Remove one of each pair, or give a separate validation set of whole groups",
            )
        )
    return out


def class_advice(train: Sequence[Item]) -> list[Advice]:
    """Labels whose classes are imbalanced or small."""
    out = []
    for name in sorted({k for item in train for k in item.labels}):
        ranked = Counter(i.labels[name] for i in train if name in i.labels).most_common()
        if len(ranked) < 2:
            continue
        (large, most), (small, least) = ranked[0], ranked[-1]
        if most >= IMBALANCE * least:
            out.append(
                Advice(
                    "imbalance",
                    least,
                    f"{name}: {large!r} has {most:,} training items, {small!r} only {least:,}, {most / least:.0f} "
                    "times fewer. Samples without a label follow these frequencies: ask for the small classes by name, "
                    "or add items to them",
                )
            )
        rare = [c for c, n in ranked if n < RARE]
        if rare:
            out.append(
                Advice(
                    "rare classes",
                    len(rare),
                    f"{name}: {len(rare):,} of {len(ranked):,} classes have fewer than {RARE} training items (the "
                    f"smallest: {small!r} with {least:,}), which is little to learn from and to measure with. Merge "
                    "them with other classes, or add items",
                )
            )
    return out


def size_advice(train: Sequence[Item], what: str) -> list[Advice]:
    """A training set so small that it is soon memorised."""
    n = len(train)
    if n >= FEW:
        return []
    text = (
        f"{n:,} training {what} are few: long training memorises them. Training measures near copies and stops when "
        f"they are more than `train.memorisation_limit`; use a short budget, or add {what}"
    )
    return [Advice("few", n, text)]


def flaw_advice(items: Sequence[Item], kind: ItemKind) -> list[Advice]:
    """Items that should perhaps not be learnt (`ItemKind.flaw`), such as images of a single colour."""
    sources: dict[str, list[str]] = {}
    for item in items:
        if (flaw := kind.flaw(item.value)) is not None:
            sources.setdefault(flaw, []).append(item.source)
    return [
        Advice(
            "flaw",
            len(names),
            f"{len(names):,} of {len(items):,} {kind.plural} {flaw} (for example {names[0]}): the model will generate "
            f"such {kind.plural} too. Remove them if they are not intended",
        )
        for flaw, names in sources.items()
    ]


def resize_advice(facts: Facts) -> list[Advice]:
    """Images that lose much to cropping, and images that are enlarged."""
    total, out = len(facts.train) + len(facts.heldout) + facts.exact, []
    if cropped := facts.counts.get("narrow", 0):
        text = (
            f"{cropped:,} of {total:,} images lose more than a quarter to the central square crop. To keep them whole, "
            "set `data.crop=pad` (adds a border) or `data.crop=stretch` (changes the aspect ratio), or crop them "
            "yourself"
        )
        out.append(Advice("cropped", cropped, text))
    if enlarged := facts.counts.get("enlarged", 0):
        to = f" to {facts.side} pixels" if facts.side else ""
        text = (
            f"{enlarged:,} of {total:,} images are enlarged{to}, which blurs them, and samples will be as blurred. "
            "Choose a smaller `data.size`, or remove them"
        )
        out.append(Advice("enlarged", enlarged, text))
    return out


# --------------------------------------------------------------------------- which family


def family_advice(images: int, minutes: float | None, rows: Sequence[Measured]) -> list[Advice]:
    """What benchmarks on a similar number of images, and in a similar time, say about the families, best first.

    Empty if no benchmark is within a factor of MAX_RATIO in both, or if only one family was measured.
    """
    comparable = [r for r in rows if _ratio(r.images, images) <= MAX_RATIO]
    if minutes is not None:
        comparable = [r for r in comparable if _ratio(r.minutes, minutes) <= MAX_RATIO]

    def setting(r: Measured) -> tuple[str, int, int, float, int]:
        return (r.data, r.images, r.side, r.minutes, r.cores)

    grouped = [list(g) for _, g in itertools.groupby(sorted(comparable, key=setting), setting)]
    compared = [g for g in grouped if len({r.family for r in g}) > 1]
    compared.sort(key=lambda g: _ratio(g[0].images, images) * _ratio(g[0].minutes, minutes or g[0].minutes))
    if minutes is not None:
        compared = compared[:1]
    return [Advice("family", g[0].images, _comparison(sorted(g, key=lambda r: r.kid))) for g in compared]


def _ratio(a: float, b: float) -> float:
    """The larger of two positive numbers divided by the smaller."""
    return math.exp(abs(math.log(a / b)))


def _comparison(rows: Sequence[Measured]) -> str:
    """The families measured in one setting as a sentence; `rows` are sorted by KID."""
    first = rows[0]
    each = ", ".join(
        f"{r.family} {r.kid:.0f} (coverage {r.coverage:.2f}"
        + (f", near copies {r.near_copies:.0%})" if r.near_copies else ")")
        for r in rows
    )
    return (
        f"measured on {first.images:,} images of {first.side} x {first.side} ({first.data}) in {first.minutes:g} "
        f"minutes of {first.cores} cores, KID x 1000: {each}. Try `family={first.family}` first"
    )
