"""Data that is in memory: datasets, data frames, arrays, lists and loaders, to rows that are written aside as files.

What an object is shows in what it offers, so that none of the libraries that make such objects is needed here.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from afresh.core import Sound, UserError
from afresh.data.imported import ImportedItem, Kind, MediaFile, image_column, jsonable, media_file, write_aside
from afresh.data.split import HELD_OUT, TRAINING

MOST = 5_000_000  # examples: a loader may never end
ACCEPTED = (
    "the path of a file or folder, a dataset with columns, a data frame of pandas or polars, a table of pyarrow, an "
    "array or tensor (N, H, W, C) of images, a list or another iterable of texts, images (PIL, arrays), sounds "
    "(afresh.core.Sound or {'array', 'sampling_rate'}), rows {column: value}, pairs (example, label), or batches of "
    "them, and {'train': ..., 'validation': ...} of any of these"
)
Row = Mapping[str, Any]


def as_path(data: Any) -> Path:
    """The path of the data: a path as it is, an object as a folder into which it was written aside.

    Equal objects are written into the same folder. Raises UserError, saying what is accepted, for anything else, and if
    a value in it cannot be used.
    """
    if isinstance(data, str | Path):
        return Path(data)
    rows = _limited(_with_splits(data))
    first = list(islice(rows, 1))
    if not first:
        raise UserError(f"The data, {_name(data)}, has no examples. Accepted: {ACCEPTED}.")
    found: dict[str, Any] = {}

    def entries() -> Iterator[ImportedItem]:
        for split, row in (*first, *rows):
            yield _entry(row, split, found)

    stream = entries()
    head = next(stream)
    kind: Kind = "text" if head.file is None else head.file.kind
    return write_aside(kind, _of_one_kind(kind, head, stream))


def entries(data: Any) -> Iterator[ImportedItem]:
    """The examples of an object one at a time, as `as_path` would write them aside, of any number and of several kinds.

    Raises UserError like `as_path`.
    """
    found: dict[str, Any] = {}
    for split, row in _with_splits(data):
        yield _entry(row, split, found)


def _of_one_kind(kind: Kind, head: ImportedItem, rest: Iterator[ImportedItem]) -> Iterator[ImportedItem]:
    yield head
    for number, entry in enumerate(rest, 2):
        other = "text" if entry.file is None else entry.file.kind
        if other != kind:
            raise UserError(
                f"The first example is of the kind {kind}, but example {number:,} is of the kind {other}. Give data of "
                "one kind; leave out rows without their image or sound."
            )
        yield entry


def _limited(rows: Iterator[tuple[str | None, Row]]) -> Iterator[tuple[str | None, Row]]:
    for number, row in enumerate(rows):
        if number == MOST:
            raise UserError(f"The data has more than {MOST:,} examples, or never ends. Give a part of it.")
        yield row


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__name__}"


# --------------------------------------------------------------------------- rows


def _with_splits(data: Any) -> Iterator[tuple[str | None, Row]]:
    """(split, row) of everything in an object."""
    if isinstance(data, Mapping) and data and all(str(k).lower() in TRAINING | HELD_OUT for k in data):
        held_out = any(str(k).lower() in HELD_OUT for k in data)
        for key, part in data.items():
            split = "validation" if str(key).lower() in HELD_OUT else "train"
            for row in _rows(part):
                yield split if held_out else None, row
        return
    for row in _rows(data):
        yield None, row


def _rows(data: Any) -> Iterator[Row]:
    if (features := getattr(data, "features", None)) is not None and isinstance(features, Mapping):  # a dataset
        from afresh.data.arrow import named_class

        names = {k: n for k, f in features.items() if (n := getattr(f, "names", None)) is not None}
        for row in data:
            yield {k: named_class(v, names.get(k)) for k, v in row.items()}
    elif callable(named := getattr(data, "iter_rows", None)):  # polars
        yield from named(named=True)
    elif callable(listed := getattr(data, "to_pylist", None)):  # pyarrow
        yield from _each(listed())
    elif callable(records := getattr(data, "to_dict", None)) and getattr(data, "columns", None) is not None:  # pandas
        yield from records("records")
    elif callable(values := getattr(data, "to_list", None)):  # a column of either
        yield from _each(values())
    elif _is_array(data):
        yield from _each(_images_of(data))
    elif isinstance(data, Mapping):
        yield from _columns(data)
    elif isinstance(data, Iterable) and not isinstance(data, bytes | bytearray | Image.Image):
        yield from _pairs(*data) if _is_labelled(data) else _each(data)
    else:
        raise UserError(f"The data is of the type {_name(data)}, which is not read. Accepted: {ACCEPTED}.")


def _each(values: Iterable[Any]) -> Iterator[Row]:
    """Rows of examples, pairs or batches."""
    for value in values:
        if isinstance(value, Mapping) and not _is_sound(value):
            yield from _columns(value) if _is_batch(value) else (value,)
        elif isinstance(value, tuple | list) and len(value) == 2 and not _is_array(value):
            yield from _pairs(*value) if _are_examples(value[0]) else (_pair(*value),)
        elif _are_examples(value):
            yield from map(_single, _images_of(value) if _is_array(value) else value)
        else:
            yield _single(value)


def _single(value: Any) -> Row:
    return {_column(value): value}


def _pair(value: Any, label: Any) -> Row:
    return {_column(value): value, "label": label}


def _pairs(values: Any, labels: Any) -> Iterator[Row]:
    values = _images_of(values) if _is_array(values) else values
    if len(values) != len(labels):
        raise UserError(
            f"There are {len(values):,} examples but {len(labels):,} labels. Give one label for each example."
        )
    yield from map(_pair, values, labels)


def _columns(columns: Mapping[str, Any]) -> Iterator[Row]:
    """Rows of {column: values}."""
    if not all(_is_array(v) or isinstance(v, list | tuple) for v in columns.values()):
        raise UserError(
            f"The data is a {_name(columns)} with {', '.join(map(str, columns)) or 'nothing'}. Accepted: columns "
            "{'image': [...], 'label': [...]}, or splits {'train': ..., 'validation': ...}."
        )
    lengths = {str(k): len(v) for k, v in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"The columns differ in length: {lengths}. Give one value of each for every example.")
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(map(str, columns), values, strict=True))


def _column(value: Any) -> str:
    """The name of the column of a value that stands alone."""
    if isinstance(value, str):
        return "text"
    return "sound" if _is_sound(value) else "image"


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _is_tensor(value: Any) -> bool:
    """Whether it is a tensor. Torch is not loaded to ask: without it there are no tensors."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_sound(value: Any) -> bool:
    keys = {"array", "sampling_rate"}
    return isinstance(value, Sound) or (isinstance(value, Mapping) and keys <= value.keys())


def _are_examples(value: Any) -> bool:
    """Whether a value holds several examples."""
    if _is_array(value):
        return value.ndim == 4 or (value.ndim == 1 and isinstance(value, np.ndarray) and value.dtype.kind in "UOT")
    return isinstance(value, list | tuple) and bool(value) and not isinstance(value[0], int | float)


def _is_labelled(data: Any) -> bool:
    """Whether the data is (examples, labels)."""
    if not isinstance(data, tuple) or len(data) != 2:
        return False
    examples, labels = data
    many = _are_examples(examples) or (_is_array(examples) and examples.ndim == 3)
    return many and (labels.ndim == 1 if _is_array(labels) else isinstance(labels, list | tuple))


def _is_batch(row: Row) -> bool:
    """Whether a row holds columns of several examples, as a loader of batches gives them."""
    columns = [v for v in row.values() if _are_examples(v) or (_is_array(v) and v.ndim == 1)]
    talks = [v for v in columns if not _is_array(v) and isinstance(v[0], Mapping) and not _is_sound(v[0])]
    return bool(columns) and not talks and all(_is_array(v) or isinstance(v, list | tuple) for v in row.values())


def _images_of(array: Any) -> Any:
    """The examples in an array. Raises UserError if its shape is not one of several images or texts."""
    if array.ndim in (3, 4) or _are_examples(array):
        return array
    raise UserError(
        f"The data is an array of shape {tuple(array.shape)} and type {array.dtype}. Accepted are images (N, H, W), "
        "(N, H, W, C) or (N, C, H, W) and arrays of texts. Give sounds as a list of afresh.core.Sound."
    )


# --------------------------------------------------------------------------- values


def _entry(row: Row, split: str | None, found: dict[str, Any]) -> ImportedItem:
    """A row as an entry. `found` keeps which column is the example's own."""
    files = {str(k): f for k, v in row.items() if (f := _file(v, str(k))) is not None}
    columns = {str(k): jsonable(v) for k, v in row.items() if str(k) not in files and not isinstance(v, bytes)}
    if not files:
        return ImportedItem(columns, split=split)
    preferred = (n for n in files if n.lower() in ("image", "img", "audio", "sound"))
    main = found.setdefault("main", next(preferred, next(iter(files))))
    if main not in files:
        raise UserError(f"A row has no value in the column {main!r}, which holds the examples. Leave out such rows.")
    others = {image_column(k): f for k, f in files.items() if k != main and f.kind == "image"}
    return ImportedItem(columns, files[main], others, split)


def _file(value: Any, column: str) -> MediaFile | None:
    """An image or a sound as a file; None if a value is neither."""
    if isinstance(value, Image.Image):
        return _png(value if value.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else value.convert("RGB"))
    if isinstance(value, Sound):
        return _wav(value.samples, value.rate)
    if isinstance(value, Mapping):
        if _is_sound(value):
            array = np.asarray(value["array"])
            wide = array.ndim == 2 and len(array) < array.shape[1]  # (C, T), as datasets has it
            return _wav(array.T if wide else array, value["sampling_rate"])
        content = value.get("bytes")
        return media_file(content, value.get("path")) if isinstance(content, bytes) else None
    if callable(decoded := getattr(value, "get_all_samples", None)):  # a decoder of torchcodec
        samples = decoded()
        return _wav(samples.data.T, samples.sample_rate)
    if isinstance(value, bytes):
        return media_file(value)
    if isinstance(value, Path):
        try:
            file = media_file(value.read_bytes(), value.name)
        except OSError as error:
            raise UserError(f"{value}, which the data names, cannot be read: {error.strerror}.") from None
        if file is None:
            raise UserError(f"{value}, which the data names, is neither an image nor a sound. Give texts as strings.")
        return file
    return _image(value, column) if _is_array(value) and value.ndim in (2, 3) else None


def _png(image: Image.Image) -> MediaFile:
    buffer = io.BytesIO()
    try:
        ImageOps.exif_transpose(image).save(buffer, "PNG")
    except OSError as error:
        raise UserError(f"An image in the data cannot be decoded: {error}. Repair it or leave it out.") from None
    return MediaFile(buffer.getvalue(), ".png")


def _wav(samples: Any, rate: Any) -> MediaFile:
    """Samples (T,) or (T, C) in [-1, 1] as a WAV file of floats. Raises UserError for another shape or rate."""
    import soundfile

    array = np.asarray(samples, dtype=np.float32)
    if array.ndim not in (1, 2) or not array.size or not 0 < int(rate) <= 768_000:
        raise UserError(
            f"A sound has the shape {array.shape} and the rate {rate}. Accepted: samples (T,) or (T, C) in [-1, 1], at "
            "a rate of 1,000 to 768,000 in a second."
        )
    buffer = io.BytesIO()
    soundfile.write(buffer, array, int(rate), "FLOAT", format="WAV")
    return MediaFile(buffer.getvalue(), ".wav")


def _image(value: Any, column: str) -> MediaFile:
    """An array (H, W), (H, W, C) or (C, H, W) as a PNG. Raises UserError for other shapes and ranges."""
    array = np.asarray(value.detach().cpu().numpy() if _is_tensor(value) else value)
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    top = 1.0 if array.dtype.kind in "bf" else 255.0
    shaped = array.size and (array.ndim == 2 or array.shape[-1] in (1, 3, 4))
    if not shaped or array.dtype.kind not in "buif" or not 0 <= low <= high <= top:
        raise UserError(
            f"An image in the column {column!r} has the shape {array.shape}, the type {array.dtype} and values from "
            f"{low:g} to {high:g}. Accepted: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, as integers from "
            "0 to 255 or floats from 0 to 1. Values around 0 are brought there by `(x + 1) / 2`."
        )
    levels = (np.round(array * 255.0) if array.dtype.kind in "bf" else array).astype(np.uint8)
    return _png(Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[-1] == 1 else levels))
