"""Conditioning images: metadata columns that name, for each image, another image that it is generated from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afresh.core import Item, Omission, Part, Refused
from afresh.data.image import SUFFIXES
from afresh.data.image.images import READ, DecodedImage, Pixels, to_channels
from afresh.data.image.pixel_file import StoredImage
from afresh.data.media_folder import Attributes, Media, names_file

CONTAINERS = frozenset({".zip", ".npz", ".npy"})
IMAGE_FILES = Media("image", SUFFIXES, READ, "image", CONTAINERS)


@dataclass(frozen=True)
class ImagePairs:
    """Which images are examples and which condition others.

    `names` are the examples: not images that only condition others, nor images whose conditioning image cannot be used
    (`refused`). `columns` are the remaining metadata columns for `names`. `images` maps each condition to the names of
    images and of their conditioning images.
    """

    names: list[str]
    columns: dict[str, list[Any]]
    images: dict[str, dict[str, str]]
    refused: list[Refused]
    notes: list[str]


def find_pairs(table: Attributes, names: Sequence[str]) -> ImagePairs:
    """Find the columns that name images (conditioning_image, *_image, image_*, *_file_name)."""
    images: dict[str, dict[str, str]] = {}  # of columns that name images; empty if the column is not used
    refused: list[Refused] = []
    notes: list[str] = []
    known, incomplete = set(names), set()
    for column, values in table.columns.items():
        present = {name: value for name, value in zip(names, values, strict=True) if value not in (None, "")}
        if not present or not all(names_file(column, value, IMAGE_FILES) for value in present.values()):
            continue
        part = _part_name(column)
        if all(name == value for name, value in present.items()):
            notes.append(Omission(f"column {column!r} is not used: it names the image itself"))
            images[column] = {}
            continue
        if part in map(_part_name, images):
            notes.append(Omission(f"column {column!r} is not used: another condition is named {part!r}"))
            images[column] = {}
            continue
        images[column] = {name: value for name, value in present.items() if value in known}
        for name, value in present.items():
            if value not in known:
                refused.append(Refused(name, f"{column} {value!r} is not a usable image", damaged=True))
                incomplete.add(name)
    conditioning_only = {value for pairs in images.values() for value in pairs.values()} - table.described
    rows = [i for i, name in enumerate(names) if name not in conditioning_only and name not in incomplete]
    columns = {k: [v[i] for i in rows] for k, v in table.columns.items() if k not in images}
    parts = {_part_name(k): v for k, v in images.items() if v}
    notes += [
        f"{k}: {len(v):,} images have a conditioning image ({len(set(v.values()) & conditioning_only):,} of these are "
        "not examples themselves)"
        for k, v in parts.items()
    ]
    return ImagePairs([names[i] for i in rows], columns, parts, refused, notes)


def _part_name(column: str) -> str:
    return re.sub(r"\W", "_", column.strip())


def conditioning_images(
    pairs: ImagePairs, decoded: Mapping[str, DecodedImage | StoredImage]
) -> list[dict[str, Pixels]]:
    """For each of `pairs.names`, its conditioning images by part: (side, side, C), with C = 3 if any of the part's
    images has colours."""
    out: list[dict[str, Pixels]] = [{} for _ in pairs.names]
    for part, sources in pairs.images.items():
        channels = max(decoded[value].pixels.shape[-1] for value in sources.values())
        for images, name in zip(out, pairs.names, strict=True):
            if name in sources:
                images[part] = to_channels(decoded[sources[name]].pixels, channels)
    return out


def fit_image_conditions(items: Sequence[Item], side: int) -> tuple[dict[str, Part], list[str]]:
    """The parts for conditioning images, and notes. A part whose images are all equal is left out."""
    spec: dict[str, Part] = {}
    notes: list[str] = []
    for name in sorted({k for item in items for k in item.images}):
        images = [item.images[name] for item in items if name in item.images]
        if all(np.array_equal(images[0], pixels) for pixels in images):
            notes.append(Omission(f"{name} is left out: every item has the same image"))
        else:
            spec[name] = Part("aligned", shape=(max(pixels.shape[-1] for pixels in images), side, side))
    return spec, notes
