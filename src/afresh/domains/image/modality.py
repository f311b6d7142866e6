"""Images: a folder, an archive of one, or NumPy arrays, to fields (C, H, W) in [-1, 1] and back to PNG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import ImageColor
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)
from torch import Tensor

from afresh.core import (
    Abilities,
    Cond,
    CondSpec,
    Corpus,
    Encoder,
    Examples,
    Item,
    Part,
    Refused,
    Sniff,
    Space,
    Stored,
    Unsupported,
    UserError,
    events,
)
from afresh.core.memory import available_memory
from afresh.data.captions import CaptionEncoder, Captions, SavedCaptions, captioned, fit_captions, of_pipeline
from afresh.data.columns import LabelColumn, add_columns
from afresh.data.conditions import CAPTION, encode_conditions, fit_conditions, with_classes
from afresh.data.encoder_file import FileEncoder, load_encoder
from afresh.data.files import DataFile, FileError, Given, path_of
from afresh.data.image import SUFFIXES
from afresh.data.image.arrays import IMAGE_KEYS, TEST, TRAIN, ArrayHeader, is_images, read_arrays, read_headers
from afresh.data.image.images import (
    TRAITS,
    DecodedImage,
    ImageFrame,
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
from afresh.data.image.kind import IMAGE, png_bytes
from afresh.data.image.pairs import CONTAINERS, IMAGE_FILES, conditioning_images, find_pairs, fit_image_conditions
from afresh.data.image.pixel_file import StoredImage, pixel_file, stored_images
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
from afresh.data.rows import StoredRows, values_of

SCALE, SHIFT = 2.0 / 255.0, -1.0  # byte -> [-1, 1]
AXES = ("height", "width")
COPIES = 3  # of the pixels that are held until training begins: images, x, and what is made of them
SMALLEST = 16  # pixels along a side of an image for a text-to-image base: of what most of their networks read as one


class ImageOptions(BaseModel):
    """How images are read and resized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int | None = Field(
        None, ge=4, le=1024, description="height and width in pixels; None: chosen from the sizes of the images"
    )
    channels: Literal["auto", "grey", "rgb"] = Field("auto", description="auto: rgb if any image has colours")
    crop: Literal["centre", "pad", "stretch"] = Field(
        "centre", description="how an image becomes square: cropped to the centre, padded, or stretched"
    )
    label_column: LabelColumn = None
    captions: Captions = "auto"
    trigger: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="a word that stands for what is learnt: put before captions, and the caption of images without one",
    )
    others: str | None = Field(
        None,
        min_length=1,
        max_length=2000,
        description="texts that have nothing to do with what a text-to-image base is taught, between semicolons, by "
        "which it is watched for forgetting",
    )
    damaged: Damaged = "skip"
    background: str = Field(
        "white", description="colour behind transparency and of padding: a name such as white, or #rrggbb"
    )
    stream: bool | None = Field(
        None,
        description="whether a folder of images is learnt from the disk instead of from memory; None: if the images "
        "need more memory than is free",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not set and earlier versions did not have: encoders of runs keep the bytes of before, whose
        hash is recorded."""
        written: dict[str, Any] = write(self)
        return {k: v for k, v in written.items() if not (k in ("trigger", "others", "stream") and v is None)}

    @field_validator("background")
    @classmethod
    def _is_colour(cls, value: str) -> str:
        ImageColor.getrgb(value)
        return value

    def frame(self, side: int) -> ImageFrame:
        red, green, blue = ImageColor.getrgb(self.background)[:3]
        return ImageFrame(side, self.crop, (red, green, blue))


@dataclass(frozen=True, kw_only=True)
class ImageEncoder(FileEncoder):
    """Images to uint8 (N, C, H, W), where x * 2 / 255 - 1 is the field, and back.

    `options` are the options of reading with the chosen size and channels, so that other data can be read in the same
    way. `captions`: of the text encoder `captioner`; None if captions are encoded as words. `notes` report what was
    left out.
    """

    format: Literal["afresh.image"] = "afresh.image"
    version: Literal[1] = 1
    channels: Literal[1, 3]
    side: Annotated[int, Field(ge=1, le=1024)]
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    conds: CondSpec
    options: ImageOptions
    captions: SavedCaptions | None = None
    notes: tuple[str, ...] = ()
    captioner: Annotated[InstanceOf[CaptionEncoder] | None, Field(exclude=True)] = None
    kind = IMAGE
    suffix = ".png"
    low_rank = True  # whether an adapter can learn what a base lacks: not if that is the row of a class

    @property
    def space(self) -> Space:
        return Space("field", (self.channels, self.side, self.side), std=self.std, axes=AXES)

    @property
    def abilities(self) -> Abilities:
        """A base draws the classes of other images, too, but for text-to-image pipelines, which have none."""
        return Abilities(tunable=None if of_pipeline(self.options.captions) else self)

    def encoder_for(self, items: Sequence[Item], options: Any, context: int) -> ImageEncoder:
        """The same encoder, with the classes of these images behind its own."""
        conds = with_classes(self.conds, items)
        encoder = replace(self, conds=conds)
        object.__setattr__(encoder, "low_rank", conds == self.conds)  # not a field, which the file would hold
        return encoder

    def first_rows(self, base: Encoder) -> Sequence[Sequence[int]]:
        """None: images have no tokens."""
        return ()

    @property
    def settled(self) -> dict[str, Any]:
        """Size and channels as chosen from the training images, and the encoder of captions."""
        return {"size": self.options.size, "channels": self.options.channels, "captions": self.options.captions}

    def encode(self, items: Sequence[Item]) -> Examples:
        """Encode items, resized and converted to the encoder's size and channels if they differ.

        Of images in a file, x is a sample. Raises UserError for a label that does not occur in training, and for a
        conditioning image that cannot be read.
        """
        if (file := pixel_file(items, self.space.shape)) is not None:
            cond = encode_conditions(items, self.conds, self.captioner)
            rows = StoredRows(file, torch.tensor([item.value.number for item in items]), cond)
            return rows.examples(SCALE, SHIFT, len(items) * file.row_bytes)
        x = self.channels_first([item.value for item in items], self.space.shape)
        cond = self.with_images(items, encode_conditions(items, self.conds, self.captioner))
        return Examples(x, cond, scale=SCALE, shift=SHIFT, bytes=x.numel())

    def channels_first(self, values: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
        """Arrays (H, W, C) or files as uint8 (N, *shape). Warns about changes other than resizing. Raises UserError for
        a file that cannot be read."""
        x, names_by_trait = stack_images(values, self.options.frame(shape[1]), shape[0])
        for trait, text in TRAITS.items():
            if names := names_by_trait.get(trait):
                more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
                events.warning(f"{text}: {', '.join(names[:3])}{more}")
        return torch.from_numpy(x)

    def with_images(self, items: Sequence[Item], cond: Cond) -> Cond:
        """The conditions with the conditioning images, which become fields like x."""
        parts, present = dict(cond.parts), dict(cond.present)
        for name, part in self.conds.items():
            rows = [i for i, item in enumerate(items) if part.kind == "aligned" and name in item.images]
            if rows:
                pixels = self.channels_first([items[i].images[name] for i in rows], part.shape)
                parts[name][rows] = pixels.float() * SCALE + SHIFT
                present[name][rows] = True
        return replace(cond, parts=parts, present=present)

    def decode(self, x: Tensor) -> list[Pixels]:
        """A field (B, C, H, W) to B uint8 arrays (H, W, C), rounded and clamped. NaN and -inf become 0, inf 255."""
        level = ((x.detach().float().cpu() - SHIFT) / SCALE).nan_to_num(0.0, 255.0, 0.0)
        pixels = level.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return list(pixels)

    def valid(self, value: Any) -> bool:
        """Whether the value is an array (H, W, C) of the space's shape with finite numbers."""
        channels, height, width = self.space.shape
        if not isinstance(value, np.ndarray) or value.shape != (height, width, channels):
            return False
        return value.dtype.kind in "uif" and bool(np.isfinite(value).all())

    def content(self, value: Any, name: str) -> bytes:
        return png_bytes(value)

    def save(self, folder: Path) -> None:
        """Write encoder.json, and the statistics of captions if a text encoder is used."""
        super().save(folder)
        if self.captioner is not None:
            self.captioner.save(folder)


class ImageModality:
    """PNG, JPEG, WebP, BMP, GIF, TIFF and HEIC files, in class folders or with metadata, and .npz and .npy arrays."""

    name = "image"
    kind = IMAGE
    options = ImageOptions

    def sniff(self, path: Path) -> Sniff:
        """Judges by the names of the files (without metadata and hidden files), or by the shapes of arrays."""
        try:
            return _sniff(path)
        except UserError as error:
            return Sniff(0.0, str(error))

    def read(self, path: Path, options: ImageOptions) -> Corpus:
        """Every image as an Item (size, size, C) with its labels, numbers, caption, conditioning images and split.

        Raises UserError if there is no usable image, or if an option does not fit the data.
        """
        kind = path.suffix.lower()
        if path.is_dir():
            corpus = _read_folder(path, options)
        elif not path.exists() or kind not in CONTAINERS:
            problem = "is a single file" if path.exists() else "does not exist"
            raise UserError(f"{path} {problem}. Give a folder of images, a .zip of one, an .npz or an .npy.")
        else:
            corpus = _read_zip(path, options) if kind == ".zip" else _read_stacks(path, options)
        corpus = stop_on_damage(corpus, options.damaged)
        items, notes = captioned(corpus.items, options.captions, options.trigger)
        return replace(corpus, items=items, notes=corpus.notes + notes)

    def fit(self, items: Sequence[Item], options: ImageOptions) -> ImageEncoder:
        """Fit shape, standard deviation and conditions to the training items. Raises UserError if there are none."""
        if not items:
            raise UserError("No image to train on: the training split is empty.")
        count = np.zeros(256, np.int64)  # occurrences of each level
        channels = 1
        for pixels in values_of(items):
            side, channels = pixels.shape[0], max(channels, pixels.shape[-1])
            count += np.bincount(pixels.ravel(), minlength=256)
        level = np.arange(256) * SCALE + SHIFT
        share = count / count.sum()
        mean = float((share * level).sum())
        std = float(np.sqrt((share * (level - mean) ** 2).sum()))
        captions, notes = fit_captions(options.captions, [item.caption for item in items if item.caption])
        width = None if captions is None else captions.saved.width
        conds, condition_notes = fit_conditions(items, width)
        image_conds, image_notes = fit_image_conditions(items, side)
        if width is not None and of_pipeline(options.captions):  # which takes captions, and nothing else
            conds, image_conds, condition_notes, image_notes = {CAPTION: Part("vector", shape=(width,))}, {}, [], []
        chosen: dict[str, Any] = {"size": side, "channels": "rgb" if channels == 3 else "grey", "stream": None}
        chosen["captions"] = "words" if captions is None else captions.saved.name
        return ImageEncoder(
            channels=3 if channels == 3 else 1,
            side=side,
            std=max(std, SCALE),
            conds=conds | image_conds,
            options=options.model_copy(update=chosen),
            captions=None if captions is None else captions.saved,
            notes=(*notes, *condition_notes, *image_notes),
            captioner=captions,
        )

    def load(self, folder: Path) -> ImageEncoder:
        """Raises UserError if encoder.json is missing, damaged, of another version or has unknown fields."""
        encoder = load_encoder(folder, ImageEncoder, "images")
        saved = encoder.captions
        return encoder if saved is None else replace(encoder, captioner=CaptionEncoder.load(folder, saved))


MODALITY = ImageModality()


# --------------------------------------------------------------------------- reading


def _read_folder(path: Path, options: ImageOptions) -> Corpus:
    """Read a folder of images, or the only archive or array file in a folder without images."""
    collection = open_folder(path, IMAGE_FILES)
    if collection.containers and next(collection.files(), None) is None:
        if len(collection.containers) > 1:
            names = ", ".join(c.name for c in collection.containers)
            raise UserError(f"{path} has no images, but several files that may contain images: {names}. Give one.")
        inner = collection.containers[0]
        corpus = _read_zip(inner, options) if inner.suffix == ".zip" else _read_stacks(inner, options)
        corpus.refused += [r for r in collection.refused if r.source != inner.name]
        corpus.notes.insert(0, f"read from {inner.name}")
        return corpus
    return _read_files(path, collection, options)


def _read_zip(file: Given, options: ImageOptions) -> Corpus:
    _check_no_stream(path_of(file), options)
    return _read_files(path_of(file), open_zip(file, IMAGE_FILES), options.model_copy(update={"stream": False}))


def _check_no_stream(path: Path, options: ImageOptions) -> None:
    if options.stream:
        raise UserError(
            f"`data.stream=true` needs a folder of image files, and {path} is one file. Unpack it into a folder, or "
            "leave the option out."
        )


def _to_stream(collection: MediaCollection, options: ImageOptions, side: int) -> list[tuple[str, DataFile]]:
    """The images of a folder if they are not to be held in memory; otherwise none. Raises UserError if that was asked
    for and cannot be."""
    if options.stream is False:
        return []
    files = [(name, file) for name, file in collection.files() if isinstance(file, DataFile)]
    needed = COPIES * len(files) * side * side * (1 if options.channels == "grey" else 3)
    free = available_memory()
    if options.stream is None and (free is None or needed <= free):
        return []
    names = [name for name, _ in files]
    if not find_pairs(attributes(collection.tables, names, IMAGE_FILES), names).images:
        return files
    if options.stream is None:
        return []
    raise UserError(
        "`data.stream=true` cannot be used with images that condition others, which are held in memory. Leave the "
        "option out, or the column that names them."
    )


def _read_files(path: Path, collection: MediaCollection, options: ImageOptions) -> Corpus:
    """Read image files and the metadata files that describe them."""
    notes: list[str] = []
    side = options.size
    if side is None:
        sides = map_threads(lambda file: short_side(file[1]), collection.files())
        side, notes = choose_side(s for s in sides if s is not None)
    frame = options.frame(side)

    smallest = SMALLEST if of_pipeline(options.captions) else 1

    def decode(file: tuple[str, Source]) -> tuple[str, DecodedImage | str]:
        name, source = file
        if (short_side(source) or smallest) < smallest:
            return name, f"smaller than {smallest} pixels, which the base sees as one square"
        try:
            return name, decode_image(source, frame)
        except FileError as error:
            return name, str(error)

    results: Sequence[tuple[str, DecodedImage | StoredImage | str]]
    if stream := _to_stream(collection, options, side):
        channels = {"grey": 1, "rgb": 3, "auto": None}[options.channels]
        results = stored_images(stream, decode, (frame, smallest), side, channels)
    else:
        results = map_threads(decode, collection.files())
    refused = collection.refused + [Refused(n, why, damaged=True) for n, why in results if isinstance(why, str)]
    decoded = {name: image for name, image in results if not isinstance(image, str)}
    IMAGE_FILES.require(len(decoded), path, refused)
    table = attributes(collection.tables, list(decoded), IMAGE_FILES)
    pairs = find_pairs(table, list(decoded))
    names = pairs.names
    refused += table.refused + pairs.refused
    IMAGE_FILES.require(len(names), path, refused)
    values, channel_notes = _same_channels([decoded[name] for name in names], options)
    folders = layout(names, IMAGE_FILES)
    labels = {name: {"label": label} for name, label in folders.labels.items()}
    items = [
        Item(value, name, labels.get(name, {}), split=folders.splits[name], images=images)
        for name, value, images in zip(names, values, conditioning_images(pairs, decoded), strict=True)
    ]
    items, column_notes = add_columns(items, pairs.columns, options.label_column)
    counts = Counter(trait for name in names for trait in decoded[name].traits)
    notes += channel_notes + folders.notes + pairs.notes + column_notes
    settled = {"stream": bool(stream)} | ({"size": side} if stream else {})
    return Corpus(items, refused, notes, counts, settled)


def _read_stacks(file: Given, options: ImageOptions) -> Corpus:
    """Read the images of a NumPy file."""
    _check_no_stream(path_of(file), options)
    path, stacks = path_of(file), read_arrays(file)
    notes: list[str] = []
    side = options.size
    if side is None:
        side, notes = choose_side(min(s.pixels.shape[1:3]) for s in stacks for _ in range(len(s.pixels)))
    frame = options.frame(side)
    refused: list[Refused] = []
    images: list[DecodedImage] = []
    items: list[Item] = []
    columns: dict[str, list[Any]] = {key: [] for s in stacks for key in s.columns}
    for stack in stacks:
        notes += stack.notes
        rows = [i for i in range(len(stack.pixels)) if i not in stack.unusable]
        unusable = ((f"{path.name}: {stack.key}[{i}]", why) for i, why in stack.unusable.items())
        refused += [Refused(name, why, damaged=True) for name, why in unusable]
        images += map_threads(lambda i, s=stack: decode_array(s.pixels[i], frame), rows)  # type: ignore[misc]
        items += [Item(None, f"{path.name}: {stack.key}[{i}]", split=stack.split) for i in rows]
        for key, column in columns.items():
            column += [stack.columns[key][i] if key in stack.columns else None for i in rows]
    IMAGE_FILES.require(len(items), path, refused)
    values, channel_notes = _same_channels(images, options)
    items = [replace(item, value=value) for item, value in zip(items, values, strict=True)]
    items, column_notes = add_columns(items, columns, options.label_column)
    counts = Counter(trait for image in images for trait in image.traits)
    return Corpus(items, refused, notes + channel_notes + column_notes, counts)


def short_sides(path: Path) -> list[int]:
    """The shorter sides of the images in a folder or an archive, in pixels; none of other files."""
    if path.is_dir():
        files = open_folder(path, IMAGE_FILES).files()
    elif path.suffix.lower() == ".zip":
        files = open_zip(path, IMAGE_FILES).files()
    else:
        return []
    sides = map_threads(lambda file: short_side(file[1]), files)
    return [s for s in sides if s is not None]


def _sniff(path: Path) -> Sniff:
    """Raises UserError for a path that cannot be read."""
    kind = path.suffix.lower()
    if path.is_file() and kind in SUFFIXES:
        return Sniff(0.5, "a single image; a folder of many is needed")
    if path.is_file() and kind in CONTAINERS - {".zip"}:
        return _sniff_arrays(read_headers(path))
    if path.is_file() and kind != ".zip":
        return Sniff(0.0, f"{path.name} is not a folder of images, a .zip, an .npz or an .npy")
    names = file_names(path)
    count = sum(Path(n).suffix.lower() in SUFFIXES for n in names)
    containers = [n for n in names if Path(n).suffix.lower() in CONTAINERS]
    if path.is_dir() and not count and len(containers) == 1:
        inner = _sniff(path / containers[0])
        return Sniff(inner.score, f"{containers[0]}: {inner.reason}")
    return Sniff(count / max(1, len(names)), f"{count:,} of {len(names):,} files are images")


def _sniff_arrays(headers: Mapping[str, ArrayHeader]) -> Sniff:
    keys = (TRAIN[0], TEST[0], *IMAGE_KEYS)
    key = next((k for k in keys if k in headers), None)
    if key is None:
        return Sniff(0.0, f"none of its arrays is named {', '.join(keys)}")
    shape, dtype = headers[key].shape, headers[key].dtype
    if is_images(headers[key]):
        return Sniff(0.9, f"{key} {shape} may contain images")
    reason = f"{key} {shape} does not contain images"
    kind = f"an array of the shape {shape}, {dtype}"
    return Sniff(0.0, reason, Unsupported(kind, f"its name is {key}", _advice(shape)))


def _advice(shape: tuple[int, ...]) -> str:
    """What an array that is not a stack of images could be, and how to make one of it."""
    accepted = "An array of images is (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1, 3 or 4, of numbers"
    if len(shape) == 4:
        n, c, h, w = shape
        return (
            f"{accepted}. As {n:,} series of {c:,} images of {h:,}x{w:,}, it becomes {n * c:,} images by "
            f"`x.reshape(-1, {h}, {w})`; as {n:,} images of {c:,} channels, choose 1, 3 or 4 of them, as `x[:, :3]`"
        )
    if len(shape) == 5:
        h, w, c = shape[2:]
        return f"{accepted}. A series of images becomes images by `x.reshape(-1, {h}, {w}, {c})`"
    if len(shape) == 2:
        return f"{accepted}. Rows of numbers are images after `x.reshape(-1, H, W)`, if H * W is {shape[1]:,}"
    return accepted


def _same_channels(
    images: Sequence[DecodedImage | StoredImage], options: ImageOptions
) -> tuple[list[Pixels | Stored], list[str]]:
    """All images with the same number of channels, and notes on the changes made to them so far."""
    coloured = sum(image.coloured for image in images)
    channels = {"grey": 1, "rgb": 3, "auto": 3 if coloured else 1}[options.channels]
    traits = Counter(trait for image in images for trait in image.traits)
    if channels == 1:
        traits["greyscale"] = coloured
    notes = [f"{text}: {traits[trait]:,}" for trait, text in TRAITS.items() if traits[trait]]
    if options.channels == "auto":
        notes.append("greyscale" if channels == 1 else f"RGB: {coloured:,} of {len(images):,} images have colours")
    return [i.value if isinstance(i, StoredImage) else to_channels(i.pixels, channels) for i in images], notes
