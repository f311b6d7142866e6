"""Advice before training: what in the data will show in the samples, counted, each with what to do about it."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from afresh.core import Item, Sound

FEW = 500  # pictures; below, a model soon knows them by heart
RARE = 20  # items of a class
UNEVEN = 10.0  # times that the largest class holds the smallest
BLANK = 2  # levels between a picture's darkest and lightest value, of 255
FAR = 3.0  # times more or fewer pictures or minutes than here say nothing of the families here
MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Advice:
    """One fact: its kind, how many items it is of, and in words with what to do."""

    kind: str
    count: int
    text: str


@dataclass(frozen=True)
class Facts:
    """What is known of the data before training. `near` and `crossing` are None where they were not searched for."""

    train: Sequence[Item]
    heldout: Sequence[Item]
    exact: int  # copies, left out
    near: int | None  # items that are nearly an earlier one
    crossing: int | None  # of those, held-out items that are nearly a training item
    counts: Mapping[str, int]  # what reading did to how many (core.Corpus)
    side: int | None = None  # of the pictures, as they are learnt
    minutes: float | None = None  # of training, where it is known


class Measured(BaseModel):
    """One benchmark of ours: a family trained on so many pictures for so long. A row of measured.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    data: str
    pictures: int = Field(gt=0)  # of the training split
    side: int = Field(gt=0)
    minutes: float = Field(gt=0)
    cores: int = Field(gt=0)
    family: str
    kid: float  # x 1000, in features of an encoder that trained on none of it
    coverage: float = Field(ge=0, le=1)
    near_copies: float | None = Field(None, ge=0, le=1)


def measured() -> list[Measured]:
    """The benchmarks of this version; none are made up, so there may be none."""
    return TypeAdapter(list[Measured]).validate_python(json.loads(MEASURED.read_text("utf-8"))["rows"])


def advise(facts: Facts, rows: Sequence[Measured] | None = None) -> list[Advice]:
    """All that applies, `rows` being our benchmarks; in a fixed order."""
    first = facts.train[0].value if facts.train else ""
    found = [*copies(facts), *classes(facts.train)]
    if isinstance(first, Sound):
        found += few(facts.train, "sounds")
    elif not isinstance(first, str):
        found += [*few(facts.train, "pictures"), *blank([*facts.train, *facts.heldout]), *sizes(facts)]
        found += families(len(facts.train), facts.minutes, measured() if rows is None else rows)
    return found


def being(count: int) -> str:
    return "item is" if count == 1 else "items are"


def copies(facts: Facts) -> list[Advice]:
    """Exact and near duplicates, and those that cross the split."""
    out = []
    if facts.exact:
        out.append(Advice("exact duplicates", facts.exact, f"{facts.exact:,} exact copies are left out: nothing to do"))
    if facts.near:
        out.append(
            Advice(
                "near duplicates",
                facts.near,
                f"{facts.near:,} {being(facts.near)} nearly the same as an earlier one, and kept: the model sees such "
                "things more often than others, and repeats them sooner. Remove those that you do not mean (afresh "
                "data)",
            )
        )
    if facts.crossing:
        out.append(
            Advice(
                "across the split",
                facts.crossing,
                f"{facts.crossing:,} of {len(facts.heldout):,} held-out {being(facts.crossing)} nearly the same as a "
                "training item: held-out numbers look better than they are, and copies of training items go unnoticed. "
                "Remove one of each pair, or hold out whole groups with --validation",
            )
        )
    return out


def classes(train: Sequence[Item]) -> list[Advice]:
    """Labels whose classes are uneven or small."""
    out = []
    for name in sorted({k for item in train for k in item.labels}):
        ranked = Counter(i.labels[name] for i in train if name in i.labels).most_common()
        if len(ranked) < 2:
            continue
        (large, most), (small, least) = ranked[0], ranked[-1]
        if most >= UNEVEN * least:
            out.append(
                Advice(
                    "imbalance",
                    least,
                    f"{name}: {large!r} has {most:,} training items, {small!r} only {least:,}, {most / least:.0f} "
                    "times fewer. What is not asked for is drawn as often as it occurs: ask for the small classes by "
                    "name, or give more of them",
                )
            )
        rare = [c for c, n in ranked if n < RARE]
        if rare:
            out.append(
                Advice(
                    "rare classes",
                    len(rare),
                    f"{name}: {len(rare):,} of {len(ranked):,} classes have fewer than {RARE} training items (the "
                    f"smallest: {small!r} with {least:,}), few to learn it by, and to measure it on. Join them "
                    "with others, or give more",
                )
            )
    return out


def few(train: Sequence[Item], what: str) -> list[Advice]:
    """A set so small that it is soon known by heart."""
    n = len(train)
    if n >= FEW:
        return []
    text = (
        f"{n:,} training {what} are few: long training ends in copies of them. Training looks for near copies and "
        f"stops when they are more than train.memorisation_limit; keep the budget short, or give more {what}"
    )
    return [Advice("few", n, text)]


def blank(items: Sequence[Item]) -> list[Advice]:
    """Pictures of one colour."""
    found = [i for i in items if is_blank(i.value)]
    if not found:
        return []
    text = (
        f"{len(found):,} of {len(items):,} pictures are of one colour (for example {found[0].source}): the model will "
        "draw such, too. Remove them if they are not meant"
    )
    return [Advice("blank", len(found), text)]


def is_blank(pixels: Any) -> bool:
    """Whether every channel of an array (H, W, C) of uint8 varies by at most BLANK levels."""
    return int(np.ptp(pixels, axis=(0, 1)).max()) <= BLANK


def sizes(facts: Facts) -> list[Advice]:
    """Pictures of which much is cut away, and those that are enlarged."""
    total, out = len(facts.train) + len(facts.heldout) + facts.exact, []
    if cut := facts.counts.get("narrow", 0):
        text = (
            f"{cut:,} of {total:,} pictures lose more than a quarter to the middle square. Keep all of them with "
            "--data crop=pad (a rim) or crop=stretch (another shape), or cut them yourself"
        )
        out.append(Advice("cropped", cut, text))
    if large := facts.counts.get("enlarged", 0):
        to = f" to {facts.side} pixels" if facts.side else ""
        text = (
            f"{large:,} of {total:,} pictures are enlarged{to}, which makes them and what is learnt from them blurred. "
            "Choose a smaller --data size=, or remove them"
        )
        out.append(Advice("enlarged", large, text))
    return out


# --------------------------------------------------------------------------- which family


def families(pictures: int, minutes: float | None, rows: Sequence[Measured]) -> list[Advice]:
    """What our benchmarks on a like number of pictures (and in like minutes) say of the families, best first.

    Nothing where none is within FAR of both, or where only one family was measured.
    """
    near = [r for r in rows if apart(r.pictures, pictures) <= FAR]
    if minutes is not None:
        near = [r for r in near if apart(r.minutes, minutes) <= FAR]
    if not near:
        return []

    def setting(r: Measured) -> tuple[str, int, int, float, int]:
        return (r.data, r.pictures, r.side, r.minutes, r.cores)

    grouped = [list(g) for _, g in itertools.groupby(sorted(near, key=setting), setting)]
    good = [g for g in grouped if len({r.family for r in g}) > 1]
    good.sort(key=lambda g: apart(g[0].pictures, pictures) * apart(g[0].minutes, minutes or g[0].minutes))
    if minutes is not None:
        good = good[:1]
    return [Advice("family", g[0].pictures, verdict(sorted(g, key=lambda r: r.kid))) for g in good]


def apart(a: float, b: float) -> float:
    """How many times one is the other, at least 1."""
    return math.exp(abs(math.log(a / b)))


def verdict(rows: Sequence[Measured]) -> str:
    """Families of one setting in words, the lowest distance first."""
    first = rows[0]
    each = ", ".join(
        f"{r.family} {r.kid:.0f} (coverage {r.coverage:.2f}"
        + (f", near copies {r.near_copies:.0%})" if r.near_copies else ")")
        for r in rows
    )
    return (
        f"measured on {first.pictures:,} pictures of {first.side} x {first.side} ({first.data}) in {first.minutes:g} "
        f"minutes of {first.cores} cores, KID x 1000: {each}. Try --family {first.family} first"
    )
