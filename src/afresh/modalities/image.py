"""Pictures: a folder, an archive of one, or NumPy arrays, to fields (C, H, W) in [-1, 1] and back to PNG."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageColor
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from afresh.core import CondSpec, Corpus, Examples, Item, Refused, Sniff, Space, UserError
from afresh.data.columns import describe
from afresh.data.conditions import SavedPart, encode_conditions, fit_conditions
from afresh.data.picture_arrays import PICTURES, TEST, TRAIN, Header, is_pictures, read_arrays, read_headers
from afresh.data.picture_folder import CONTAINERS, Collection, attributes, file_names, layout, open_folder, open_zip
from afresh.data.pictures import (
    SIDES,
    SUFFIXES,
    TRAITS,
    Frame,
    Picture,
    PictureError,
    Pixels,
    Source,
    decode_array,
    decode_picture,
    natural_side,
    short_side,
    threaded,
    to_channels,
)

SCALE, SHIFT = 2.0 / 255.0, -1.0  # byte -> [-1, 1]


class ImageOptions(BaseModel):
    """How pictures are read. `size` is the side that they are resized to; None = chosen from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int | None = Field(None, ge=4, le=1024)
    channels: Literal["auto", "grey", "rgb"] = "auto"
    crop: Literal["centre", "pad", "stretch"] = "centre"
    label_column: str | None = None  # the metadata column that becomes "label"
    background: str = "white"  # behind transparency and beside padded pictures: a name or #rrggbb

    @field_validator("background")
    @classmethod
    def _is_colour(cls, value: str) -> str:
        ImageColor.getrgb(value)
        return value

    def frame(self, side: int) -> Frame:
        red, green, blue = ImageColor.getrgb(self.background)[:3]
        return Frame(side, self.crop, (red, green, blue))


class _Saved(BaseModel):
    """encoder.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["afresh.image"] = "afresh.image"
    version: Literal[1] = 1
    channels: Literal[1, 3]
    side: int = Field(ge=1, le=1024)
    std: float = Field(gt=0, allow_inf_nan=False)
    conds: dict[str, SavedPart]
    options: ImageOptions
    notes: tuple[str, ...] = ()


class ImageEncoder:
    """Pictures to uint8 (N, C, H, W), where x * 2 / 255 - 1 is the field, and back.

    `options` are those of reading with the size and the channels filled in: read other data with them, so
    that it has the size of training. `notes` say what fitting left out.
    """

    def __init__(self, space: Space, conds: CondSpec, options: ImageOptions, notes: Sequence[str] = ()) -> None:
        self.space = space
        self.conds = conds
        self.options = options
        self.notes = tuple(notes)

    @property
    def settled(self) -> dict[str, Any]:
        """Size and channels, as chosen from the training pictures."""
        return {"size": self.options.size, "channels": self.options.channels}

    def encode(self, items: Sequence[Item]) -> Examples:
        """Items of another size or number of channels are brought to the encoder's.

        Raises UserError for a label never seen in training.
        """
        channels, side, _ = self.space.shape
        frame = self.options.frame(side)
        x = np.empty((len(items), channels, side, side), np.uint8)
        for row, item in enumerate(items):
            pixels = item.value
            if pixels.shape[:2] != (side, side):
                pixels = decode_array(pixels, frame).pixels
            x[row] = np.moveaxis(to_channels(pixels, channels), 2, 0)
        cond = encode_conditions(items, self.conds)
        return Examples(torch.from_numpy(x), cond, scale=SCALE, shift=SHIFT, bytes=x.size)

    def decode(self, x: Tensor) -> list[Pixels]:
        """A field (B, C, H, W) to B arrays (H, W, C), rounded and clamped. Not finite becomes black."""
        level = ((x.detach().float().cpu() - SHIFT) / SCALE).nan_to_num(0.0, 255.0, 0.0)
        pixels = level.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return list(pixels)

    def valid(self, value: Any) -> bool:
        """Whether it is an array (H, W, C) of the space's shape with finite numbers."""
        channels, height, width = self.space.shape
        if not isinstance(value, np.ndarray) or value.shape != (height, width, channels):
            return False
        return value.dtype.kind in "uif" and bool(np.isfinite(value).all())

    def write(self, values: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]:
        """One PNG each in `folder`; returns the file names."""
        folder.mkdir(parents=True, exist_ok=True)
        files = [f"{re.sub(r'[^A-Za-z0-9._-]', '_', name.removesuffix('.png'))}.png" for name in names]
        if len(set(files)) != len(values):
            raise ValueError(f"{len(values)} pictures need as many different names, not {files}")
        for value, file in zip(values, files, strict=True):
            Image.fromarray(value[..., 0] if value.shape[-1] == 1 else value).save(folder / file)
        return files

    def save(self, folder: Path) -> None:
        channels, side, _ = self.space.shape
        saved = _Saved(
            channels=3 if channels == 3 else 1,
            side=side,
            std=self.space.std,
            conds={name: SavedPart.of(part) for name, part in self.conds.items()},
            options=self.options,
            notes=self.notes,
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.json").write_text(saved.model_dump_json(indent=1), encoding="utf-8")


class ImageModality:
    """PNG, JPEG, WebP, BMP and GIF files, in class folders or with metadata beside them, .npz and .npy."""

    name = "image"
    options = ImageOptions

    def sniff(self, path: Path) -> Sniff:
        """By the names of the files (metadata and hidden files apart), or the shapes of the arrays."""
        try:
            return _sniff(path)
        except UserError as error:
            return Sniff(0.0, str(error))

    def read(self, path: Path, options: ImageOptions) -> Corpus:
        """Every picture as an Item (size, size, C), its labels, numbers, caption and split.

        Raises UserError when there is no usable picture, or for options that the data cannot meet.
        """
        if path.is_dir():
            return _read_folder(path, options)
        kind = path.suffix.lower()
        if not path.exists() or kind not in CONTAINERS:
            given = "is one file" if path.exists() else "does not exist"
            raise UserError(f"{path} {given}. Give a folder of pictures, a .zip of one, an .npz or an .npy.")
        return _read_zip(path, options) if kind == ".zip" else _read_stacks(path, options)

    def fit(self, items: Sequence[Item], options: ImageOptions) -> ImageEncoder:
        """Shape, spread and conditions of the training items."""
        if not items:
            raise UserError("There is no picture to train on: the training split is empty.")
        side = items[0].value.shape[0]
        channels = max(item.value.shape[-1] for item in items)
        count = np.zeros(256, np.int64)  # how often each level occurs
        for item in items:
            count += np.bincount(item.value.ravel(), minlength=256)
        level = np.arange(256) * SCALE + SHIFT
        share = count / count.sum()
        mean = float((share * level).sum())
        std = float(np.sqrt((share * (level - mean) ** 2).sum()))
        spec, notes = fit_conditions(items)
        kept = options.model_copy(update={"size": side, "channels": "rgb" if channels == 3 else "grey"})
        space = Space("field", (channels, side, side), std=max(std, SCALE))
        return ImageEncoder(space, spec, kept, notes)

    def load(self, folder: Path) -> ImageEncoder:
        """Raises UserError when encoder.json is missing, damaged, of another version or has unknown fields."""
        file = folder / "encoder.json"
        try:
            saved = _Saved.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{file} is no encoder of pictures that this version can read: {error}") from None
        space = Space("field", (saved.channels, saved.side, saved.side), std=saved.std)
        return ImageEncoder(space, {k: p.part() for k, p in saved.conds.items()}, saved.options, saved.notes)


MODALITY = ImageModality()


# --------------------------------------------------------------------------- reading


def _read_folder(path: Path, options: ImageOptions) -> Corpus:
    """A folder of pictures; or one that holds a single archive or array file instead, which is read."""
    found = open_folder(path)
    if found.containers and next(found.pictures(), None) is None:
        if len(found.containers) > 1:
            names = ", ".join(c.name for c in found.containers)
            raise UserError(f"{path} holds no picture but several files that may hold some: {names}. Give one of them.")
        inner = found.containers[0]
        corpus = _read_zip(inner, options) if inner.suffix.lower() == ".zip" else _read_stacks(inner, options)
        corpus.refused += [r for r in found.refused if path / r.source != inner]
        corpus.notes.insert(0, f"{inner.name} is read")
        return corpus
    return _read_files(path, found, options)


def _read_zip(path: Path, options: ImageOptions) -> Corpus:
    return _read_files(path, open_zip(path), options)


def _read_files(path: Path, found: Collection, options: ImageOptions) -> Corpus:
    """Picture files, with metadata files, to a corpus."""
    notes: list[str] = []
    side = options.size
    if side is None:
        side, notes = _natural(s for s in threaded(lambda p: short_side(p[1]), found.pictures()) if s is not None)
    frame = options.frame(side)

    def attempt(picture: tuple[str, Source]) -> tuple[str, Picture | str]:
        name, source = picture
        try:
            return name, decode_picture(source, frame)
        except PictureError as error:
            return name, str(error)

    decoded = threaded(attempt, found.pictures())
    refused = found.refused + [Refused(name, reason) for name, reason in decoded if isinstance(reason, str)]
    good = {name: picture for name, picture in decoded if isinstance(picture, Picture)}
    _need_some(path, len(good), refused)
    names = list(good)
    values, changed = _same_channels(list(good.values()), options)
    table = attributes(found.tables, names)
    folders = layout(names)
    items = [
        Item(v, name, {"label": folders.labels[name]} if name in folders.labels else {}, split=folders.splits[name])
        for name, v in zip(names, values, strict=True)
    ]
    items, more = _described(items, table.columns, options)
    return Corpus(items, refused + table.refused, notes + changed + folders.notes + more)


def _read_stacks(path: Path, options: ImageOptions) -> Corpus:
    """The pictures of a NumPy file to a corpus."""
    stacks = read_arrays(path)
    notes: list[str] = []
    side = options.size
    if side is None:
        side, notes = _natural(min(s.pixels.shape[1:3]) for s in stacks for _ in range(len(s.pixels)))
    frame = options.frame(side)
    refused: list[Refused] = []
    pictures: list[Picture] = []
    items: list[Item] = []
    columns: dict[str, list[Any]] = {key: [] for s in stacks for key in s.columns}
    for stack in stacks:
        notes += stack.notes
        rows = [i for i in range(len(stack.pixels)) if i not in stack.unusable]
        refused += [Refused(f"{path.name}: {stack.key}[{i}]", why) for i, why in stack.unusable.items()]
        pictures += threaded(lambda i, s=stack: decode_array(s.pixels[i], frame), rows)  # type: ignore[misc]
        items += [Item(None, f"{path.name}: {stack.key}[{i}]", split=stack.split) for i in rows]
        for key, column in columns.items():
            column += [stack.columns[key][i] if key in stack.columns else None for i in rows]
    _need_some(path, len(items), refused)
    values, changed = _same_channels(pictures, options)
    items = [replace(item, value=value) for item, value in zip(items, values, strict=True)]
    items, more = _described(items, columns, options)
    return Corpus(items, refused, notes + changed + more)


def _sniff(path: Path) -> Sniff:
    """Raises UserError for a path that nothing can be read from."""
    kind = path.suffix.lower()
    if path.is_file() and kind in SUFFIXES:
        return Sniff(0.5, "one picture; a folder of many is needed")
    if path.is_file() and kind in CONTAINERS - {".zip"}:
        return _sniff_arrays(read_headers(path))
    if path.is_file() and kind != ".zip":
        return Sniff(0.0, f"{path.name} is no folder of pictures, .zip, .npz or .npy")
    names = file_names(path)
    pictures = sum(Path(n).suffix.lower() in SUFFIXES for n in names)
    inner = [n for n in names if Path(n).suffix.lower() in CONTAINERS]
    if path.is_dir() and not pictures and len(inner) == 1:
        within = _sniff(path / inner[0])
        return Sniff(within.score, f"{inner[0]}: {within.reason}")
    return Sniff(pictures / max(1, len(names)), f"{pictures:,} of {len(names):,} files are pictures")


def _sniff_arrays(headers: Mapping[str, Header]) -> Sniff:
    keys = (TRAIN[0], TEST[0], *PICTURES)
    key = next((k for k in keys if k in headers), None)
    if key is None:
        return Sniff(0.0, f"none of its arrays is named {', '.join(keys)}")
    good = is_pictures(headers[key])
    return Sniff(0.9 if good else 0.0, f"{key} {headers[key].shape} {'may be' if good else 'is not'} pictures")


def _natural(short_sides: Iterable[int]) -> tuple[int, list[str]]:
    """The size chosen from the data, and why."""
    sides = list(short_sides)
    if not sides:  # nothing is usable, which decoding will say
        return SIDES[0], []
    side, low, high = natural_side(sides), min(sides), max(sides)
    there = f"{low}" if low == high else f"{low} to {high}"
    return side, [f"size {side}, because the pictures' shorter sides are {there} pixels; another: size"]


def _need_some(path: Path, count: int, refused: Sequence[Refused]) -> None:
    if count == 0:
        why = "".join(f"\n  {r.source}: {r.reason}" for r in refused[:5])
        raise UserError(f"There is no usable picture in {path} (PNG, JPEG, WebP, BMP, GIF).{why}")


def _same_channels(pictures: Sequence[Picture], options: ImageOptions) -> tuple[list[Pixels], list[str]]:
    """All pictures with the same number of channels, and what was done to them."""
    coloured = sum(p.pixels.shape[-1] == 3 for p in pictures)
    channels = {"grey": 1, "rgb": 3, "auto": 3 if coloured else 1}[options.channels]
    traits = Counter(t for p in pictures for t in p.traits)
    if channels == 1:
        traits["greyed"] = coloured
    notes = [f"{said}: {traits[t]:,}" for t, said in TRAITS.items() if traits[t]]
    if options.channels == "auto":
        notes.append("grey" if channels == 1 else f"RGB: {coloured:,} of {len(pictures):,} pictures have colours")
    return [to_channels(p.pixels, channels) for p in pictures], notes


def _described(
    items: list[Item], columns: Mapping[str, list[Any]], options: ImageOptions
) -> tuple[list[Item], list[str]]:
    """Add what the columns say of each item; a column's label goes before the folder's."""
    said = describe(columns, len(items), options.label_column)
    notes = list(said.notes)
    by_folder = any(item.labels for item in items)
    if by_folder and "label" in said.names:
        notes.append("the label comes from the metadata; the folders' names are not used")
    out = []
    for item, labels, numbers, caption in zip(items, said.labels, said.numbers, said.captions, strict=True):
        kept = {} if "label" in said.names else dict(item.labels)
        out.append(replace(item, labels=kept | labels, numbers=numbers, caption=caption))
    return out, notes + _missing(out)


def _missing(items: Sequence[Item]) -> list[str]:
    """A note for every part that some items lack."""
    counts = Counter(k for item in items for k in (*item.labels, *item.numbers))
    counts["caption"] = sum(item.caption is not None for item in items)
    return [
        f"{name} missing: {len(items) - n:,} of {len(items):,} items, trained with the condition left out"
        for name, n in sorted(counts.items())
        if 0 < n < len(items)
    ]
