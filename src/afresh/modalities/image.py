"""Pictures: a folder, an archive of one, or NumPy arrays, to fields (C, H, W) in [-1, 1] and back to PNG."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageColor
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from afresh.core import Cond, CondSpec, Corpus, Examples, Item, Refused, Sniff, Space, UserError, events
from afresh.data.captions import CaptionEncoder, SavedCaptions, fit_captions
from afresh.data.columns import add_columns
from afresh.data.conditions import SavedPart, encode_conditions, fit_conditions
from afresh.data.image.arrays import IMAGE_KEYS, TEST, TRAIN, Header, is_images, read_arrays, read_headers
from afresh.data.image.images import (
    SUFFIXES,
    TRAITS,
    DecodedImage,
    Frame,
    ImageError,
    Pixels,
    Source,
    choose_side,
    decode_array,
    decode_image,
    map_threads,
    short_side,
    stack_images,
    to_channels,
)
from afresh.data.image.pairs import CONTAINERS, IMAGE_FILES, conditioning_images, find_pairs, fit_image_conditions
from afresh.data.media_folder import (
    Damaged,
    MediaCollection,
    attributes,
    file_names,
    layout,
    open_folder,
    open_zip,
    stop_on_damage,
)

SCALE, SHIFT = 2.0 / 255.0, -1.0  # byte -> [-1, 1]
AXES = ("height", "width")


class ImageOptions(BaseModel):
    """How pictures are read. `size` is the side that they are resized to; None = chosen from the data.

    `captions`: auto; words, learnt from the training captions alone; or a frozen text encoder: minilm, a folder, or a
    name of the hub (afresh.data.captions). `damaged`: skip, and tell, what cannot be read, or stop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int | None = Field(None, ge=4, le=1024)
    channels: Literal["auto", "grey", "rgb"] = "auto"  # auto: grey where every image is
    crop: Literal["centre", "pad", "stretch"] = "centre"  # how an image becomes square
    label_column: str | None = None  # the metadata column that becomes "label"
    captions: str = Field("auto", min_length=1)
    damaged: Damaged = "skip"
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
    captions: SavedCaptions | None = None
    notes: tuple[str, ...] = ()


class ImageEncoder:
    """Pictures to uint8 (N, C, H, W), where x * 2 / 255 - 1 is the field, and back.

    `options` are those of reading with the size and the channels filled in: read other data with them, so
    that it has the size of training. `captions` makes vectors of captions, where they are not learnt as words. `notes`
    say what fitting left out.
    """

    def __init__(
        self,
        space: Space,
        conds: CondSpec,
        options: ImageOptions,
        notes: Sequence[str] = (),
        captions: CaptionEncoder | None = None,
    ) -> None:
        self.space = space
        self.conds = conds
        self.options = options
        self.notes = tuple(notes)
        self.captions = captions

    @property
    def settled(self) -> dict[str, Any]:
        """Size and channels as chosen from the training pictures, and how captions were read."""
        return {"size": self.options.size, "channels": self.options.channels, "captions": self.options.captions}

    def encode(self, items: Sequence[Item]) -> Examples:
        """Items of another size or number of channels are brought to the encoder's.

        Raises UserError for a label never seen in training, and for a picture beside that cannot be read.
        """
        x = self.channels_first([item.value for item in items], self.space.shape)
        cond = self.with_images(items, encode_conditions(items, self.conds, self.captions))
        return Examples(x, cond, scale=SCALE, shift=SHIFT, bytes=x.numel())

    def channels_first(self, values: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
        """Arrays (H, W, C) or files, to uint8 (N, *shape); what had to be done to them is told. Raises UserError for a
        file that cannot be read."""
        x, told = stack_images(values, self.options.frame(shape[1]), shape[0])
        for trait, said in TRAITS.items():
            if names := told.get(trait):
                more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
                events.warning(f"{said}: {', '.join(names[:3])}{more}")
        return torch.from_numpy(x)

    def with_images(self, items: Sequence[Item], cond: Cond) -> Cond:
        """The same with the pictures beside, as fields like x."""
        parts, present = dict(cond.parts), dict(cond.present)
        for name, part in self.conds.items():
            rows = [i for i, item in enumerate(items) if part.kind == "aligned" and name in item.images]
            if rows:
                pixels = self.channels_first([items[i].images[name] for i in rows], part.shape)
                parts[name][rows] = pixels.float() * SCALE + SHIFT
                present[name][rows] = True
        return replace(cond, parts=parts, present=present)

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

    def hear(self, value: Any) -> None:
        """A picture has no sound."""

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
            captions=None if self.captions is None else self.captions.saved,
            notes=self.notes,
        )
        folder.mkdir(parents=True, exist_ok=True)
        if self.captions is not None:
            self.captions.save(folder)
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
            return stop_on_damage(_read_folder(path, options), options.damaged)
        kind = path.suffix.lower()
        if not path.exists() or kind not in CONTAINERS:
            given = "is one file" if path.exists() else "does not exist"
            raise UserError(f"{path} {given}. Give a folder of pictures, a .zip of one, an .npz or an .npy.")
        corpus = _read_zip(path, options) if kind == ".zip" else _read_stacks(path, options)
        return stop_on_damage(corpus, options.damaged)

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
        captions, notes = fit_captions(options.captions, [item.caption for item in items if item.caption])
        spec, more = fit_conditions(items, None if captions is None else captions.saved.width)
        beside, same = fit_image_conditions(items, side)
        settled = {"size": side, "channels": "rgb" if channels == 3 else "grey"}
        settled["captions"] = "words" if captions is None else captions.saved.name
        space = Space("field", (channels, side, side), std=max(std, SCALE), axes=AXES)
        kept = options.model_copy(update=settled)
        return ImageEncoder(space, spec | beside, kept, notes + more + same, captions)

    def load(self, folder: Path) -> ImageEncoder:
        """Raises UserError when encoder.json is missing, damaged, of another version or has unknown fields."""
        file = folder / "encoder.json"
        try:
            saved = _Saved.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{file} is no encoder of pictures that this version can read: {error}") from None
        space = Space("field", (saved.channels, saved.side, saved.side), std=saved.std, axes=AXES)
        captions = None if saved.captions is None else CaptionEncoder.load(folder, saved.captions)
        spec = {k: p.part() for k, p in saved.conds.items()}
        return ImageEncoder(space, spec, saved.options, saved.notes, captions)


MODALITY = ImageModality()


# --------------------------------------------------------------------------- reading


def _read_folder(path: Path, options: ImageOptions) -> Corpus:
    """A folder of pictures; or one that holds a single archive or array file instead, which is read."""
    found = open_folder(path, IMAGE_FILES)
    if found.containers and next(found.files(), None) is None:
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
    return _read_files(path, open_zip(path, IMAGE_FILES), options)


def _read_files(path: Path, found: MediaCollection, options: ImageOptions) -> Corpus:
    """Picture files, with metadata files, to a corpus."""
    notes: list[str] = []
    side = options.size
    if side is None:
        side, notes = choose_side(s for s in map_threads(lambda p: short_side(p[1]), found.files()) if s is not None)
    frame = options.frame(side)

    def attempt(picture: tuple[str, Source]) -> tuple[str, DecodedImage | str]:
        name, source = picture
        try:
            return name, decode_image(source, frame)
        except ImageError as error:
            return name, str(error)

    decoded = map_threads(attempt, found.files())
    refused = found.refused + [Refused(n, why, damaged=True) for n, why in decoded if isinstance(why, str)]
    good = {name: picture for name, picture in decoded if isinstance(picture, DecodedImage)}
    IMAGE_FILES.require(len(good), path, refused)
    table = attributes(found.tables, list(good), IMAGE_FILES)
    pairs = find_pairs(table, list(good))
    names = pairs.names
    refused += table.refused + pairs.refused
    IMAGE_FILES.require(len(names), path, refused)
    values, changed = _same_channels([good[name] for name in names], options)
    folders = layout(names, IMAGE_FILES)
    labels = {name: {"label": label} for name, label in folders.labels.items()}
    items = [
        Item(value, name, labels.get(name, {}), split=folders.splits[name], images=images)
        for name, value, images in zip(names, values, conditioning_images(pairs, good), strict=True)
    ]
    items, more = add_columns(items, pairs.columns, options.label_column)
    counts = Counter(trait for name in names for trait in good[name].traits)
    return Corpus(items, refused, notes + changed + folders.notes + pairs.notes + more, counts)


def _read_stacks(path: Path, options: ImageOptions) -> Corpus:
    """The pictures of a NumPy file to a corpus."""
    stacks = read_arrays(path)
    notes: list[str] = []
    side = options.size
    if side is None:
        side, notes = choose_side(min(s.pixels.shape[1:3]) for s in stacks for _ in range(len(s.pixels)))
    frame = options.frame(side)
    refused: list[Refused] = []
    pictures: list[DecodedImage] = []
    items: list[Item] = []
    columns: dict[str, list[Any]] = {key: [] for s in stacks for key in s.columns}
    for stack in stacks:
        notes += stack.notes
        rows = [i for i in range(len(stack.pixels)) if i not in stack.unusable]
        named = ((f"{path.name}: {stack.key}[{i}]", why) for i, why in stack.unusable.items())
        refused += [Refused(name, why, damaged=True) for name, why in named]
        pictures += map_threads(lambda i, s=stack: decode_array(s.pixels[i], frame), rows)  # type: ignore[misc]
        items += [Item(None, f"{path.name}: {stack.key}[{i}]", split=stack.split) for i in rows]
        for key, column in columns.items():
            column += [stack.columns[key][i] if key in stack.columns else None for i in rows]
    IMAGE_FILES.require(len(items), path, refused)
    values, changed = _same_channels(pictures, options)
    items = [replace(item, value=value) for item, value in zip(items, values, strict=True)]
    items, more = add_columns(items, columns, options.label_column)
    return Corpus(items, refused, notes + changed + more, Counter(t for p in pictures for t in p.traits))


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
    keys = (TRAIN[0], TEST[0], *IMAGE_KEYS)
    key = next((k for k in keys if k in headers), None)
    if key is None:
        return Sniff(0.0, f"none of its arrays is named {', '.join(keys)}")
    good = is_images(headers[key])
    return Sniff(0.9 if good else 0.0, f"{key} {headers[key].shape} {'may be' if good else 'is not'} pictures")


def _same_channels(pictures: Sequence[DecodedImage], options: ImageOptions) -> tuple[list[Pixels], list[str]]:
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
