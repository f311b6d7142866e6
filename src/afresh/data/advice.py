"""Advice before training: counts of what in the data will affect the samples, each with what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afresh.core import Item, ItemKind
from afresh.core.plural import counted
from afresh.core.plural import size as in_bytes

RARE = 20  # items of a class; a class with fewer is rare
IMBALANCE = 10.0  # size of the largest class divided by that of the smallest


@dataclass(frozen=True)
class Advice:
    """One fact about the data: its kind, the number of items that it concerns, and a text with what to do."""

    kind: str
    count: int
    text: str


@dataclass(frozen=True)
class DataFacts:
    """What is known about the data before training. `near` and `crossing` are None if duplicates were not searched."""

    kind: ItemKind
    train: Sequence[Item]
    heldout: Sequence[Item]
    exact: int  # exact copies, which are left out
    near: int | None  # items that are near duplicates of an earlier one
    crossing: int | None  # held-out items that are near duplicates of a training item
    counts: Mapping[str, int]  # changes made while reading (core.Corpus)
    side: int | None = None  # of the images in pixels, as the model sees them
    size: int = 0  # bytes of the training items
    enough: tuple[int, str] = (0, "items")  # that usually suffice (`afresh.core.registry.enough`)
    whole: bool = True  # whether `train` are all training items, and no sample of them, whose number tells nothing


def advise(facts: DataFacts) -> list[Advice]:
    """All advice that applies, in a fixed order."""
    advice = duplicate_advice(facts)
    if facts.whole:
        advice += class_advice(facts.train)
        if short := shortage(facts.enough, facts.kind, len(facts.train), facts.size)[1]:
            text = (
                f"there are {short}. A model soon repeats fewer. Add {facts.kind.plural}, or train for a short time; "
                "training ends when too many samples are near copies (`train.memorisation_limit`)"
            )
            advice.append(Advice("few", len(facts.train), text))
    advice += flaw_advice([*facts.train, *facts.heldout], facts.kind)
    return [*advice, *resize_advice(facts)]


def _items_are(count: int) -> str:
    return "item is" if count == 1 else "items are"


def duplicate_advice(facts: DataFacts) -> list[Advice]:
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


def shortage(enough: tuple[int, str], kind: ItemKind, items: int, size: int) -> tuple[float, str]:
    """What there is to learn from as a share of what usually suffices, and both in words; 1 and no words where it
    suffices. `size`: in bytes."""
    number, unit = enough
    have = size if unit == "bytes" else items
    if have >= number:
        return 1.0, ""
    if unit == "bytes":
        there, usual = f"{in_bytes(size)} of {kind.plural}", f"{in_bytes(number)} usually suffices"
    else:
        there, usual = counted(items, kind.name, kind.plural), f"{number:,} usually suffice"
    return have / number, f"{there} to learn from, and about {usual}"


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


def resize_advice(facts: DataFacts) -> list[Advice]:
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
