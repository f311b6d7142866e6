"""Pictures made from other pictures: columns of the metadata that hold file names of pictures beside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afresh.core import Item, Part, Refused
from afresh.data.image.images import SUFFIXES, DecodedImage, Pixels, to_channels
from afresh.data.media_folder import Attributes, Media, names_file

CONTAINERS = frozenset({".zip", ".npz", ".npy"})
IMAGE_FILES = Media("image", SUFFIXES, "PNG, JPEG, WebP, BMP and GIF", "image", CONTAINERS)


@dataclass(frozen=True)
class Pairs:
    """`images`: column -> picture -> the picture beside it. `names` are the pictures that are examples: not those that
    only condition others, nor those whose picture beside cannot be used (`refused`). `columns` are the others, for
    `names`."""

    names: list[str]
    columns: dict[str, list[Any]]
    images: dict[str, dict[str, str]]
    refused: list[Refused]
    notes: list[str]


def find_pairs(table: Attributes, names: Sequence[str]) -> Pairs:
    """Find the columns of pictures (conditioning_image, *_image, image_*, *_file_name) among those of `names`."""
    images: dict[str, dict[str, str]] = {}
    refused: list[Refused] = []
    notes: list[str] = []
    known, lost = set(names), set()
    for column, values in table.columns.items():
        there = {name: value for name, value in zip(names, values, strict=True) if value not in (None, "")}
        if not there or not all(names_file(column, value, IMAGE_FILES) for value in there.values()):
            continue
        part = re.sub(r"\W", "_", column.strip())
        if all(name == value for name, value in there.items()):
            notes.append(f"column {column!r} is not used: it names the picture itself")
            images[column] = {}
            continue
        if part in {re.sub(r"\W", "_", c.strip()) for c in images}:
            notes.append(f"column {column!r} is not used: another part is named {part!r}")
            images[column] = {}
            continue
        images[column] = {name: value for name, value in there.items() if value in known}
        for name, value in there.items():
            if value not in known:
                refused.append(Refused(name, f"{column} {value!r} is no picture that could be used", damaged=True))
                lost.add(name)
    beside = {value for pairs in images.values() for value in pairs.values()} - table.described
    kept = [i for i, name in enumerate(names) if name not in beside and name not in lost]
    columns = {k: [v[i] for i in kept] for k, v in table.columns.items() if k not in images}
    found = {re.sub(r"\W", "_", k.strip()): v for k, v in images.items() if v}
    notes += [
        f"{k}: {len(v):,} pictures are made from others beside them ({len(set(v.values()) & beside):,} of which are no "
        "examples themselves)"
        for k, v in found.items()
    ]
    return Pairs([names[i] for i in kept], columns, found, refused, notes)


def conditioning_images(pairs: Pairs, good: Mapping[str, DecodedImage]) -> list[dict[str, Pixels]]:
    """For each of `pairs.names`, the pictures beside it by part: (side, side, C), C = 3 where a part has colours."""
    out: list[dict[str, Pixels]] = [{} for _ in pairs.names]
    for part, beside in pairs.images.items():
        channels = max(good[value].pixels.shape[-1] for value in beside.values())
        for images, name in zip(out, pairs.names, strict=True):
            if name in beside:
                images[part] = to_channels(good[beside[name]].pixels, channels)
    return out


def fit_image_conditions(items: Sequence[Item], side: int) -> tuple[dict[str, Part], list[str]]:
    """The parts that are pictures beside; one that is the same everywhere says nothing."""
    spec: dict[str, Part] = {}
    notes = []
    for name in sorted({k for item in items for k in item.images}):
        there = [item.images[name] for item in items if name in item.images]
        if all(np.array_equal(there[0], pixels) for pixels in there):
            notes.append(f"{name} is left out: it is the same picture everywhere")
        else:
            spec[name] = Part("aligned", shape=(max(pixels.shape[-1] for pixels in there), side, side))
    return spec, notes
