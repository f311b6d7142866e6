"""Images in NumPy files (.npy and .npz), read without pickle and only after their headers have been validated."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission, UserError
from afresh.data.files import FileError, Given, ZipLimits, open_file, path_of
from afresh.data.limits import parsing

LIMITS = ZipLimits()
MOST_ARRAYS = 1_000  # of one file
HEADER = 1 << 17  # bytes in which an .npy has its header
MAX_BYTES = LIMITS.total_bytes  # of all arrays of one file, uncompressed
TRAIN, TEST = ("x_train", "y_train"), ("x_test", "y_test")
IMAGE_KEYS, LABEL_KEYS = ("x", "images", "arr_0"), ("y", "labels")
CLASS_NAMES = "class_names"
KEYS = "x_train, y_train, x_test, y_test, or x (images, arr_0) with y (labels), and class_names"


@dataclass(frozen=True)
class Stack:
    """Images as one uint8 array (N, H, W, C), C in 1, 3, 4, with columns of N values each."""

    pixels: NDArray[np.uint8]
    columns: Mapping[str, list[Any]]
    split: str | None  # "train" or "validation" if the file defines a split
    key: str  # the array's name, for messages
    unusable: Mapping[int, str]  # row -> reason
    notes: list[str]


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and type of an array, as its file declares them."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_headers(file: Given) -> dict[str, ArrayHeader]:
    """Names, shapes and types of the arrays, without reading their content.

    Raises UserError for a file that is damaged, contains Python objects, declares more data than it has, or would take
    more than MAX_BYTES.
    """
    headers: dict[str, ArrayHeader] = {}
    path = path_of(file)
    try:
        with parsing("NumPy file"), open_file(file) as stream:
            if path.suffix.lower() == ".npy":
                headers["arr_0"] = array_header(stream, os.fstat(stream.fileno()).st_size, path.name)
            else:
                headers = headers_within(stream)
    except FileError as error:
        raise UserError(
            f"{path} cannot be read as a NumPy file ({error}). It may be damaged or truncated: write it again."
        ) from None
    total = sum(int(np.prod(h.shape, dtype=object)) * h.dtype.itemsize for h in headers.values())
    if total > MAX_BYTES:
        raise UserError(
            f"{path} would unpack to {total:,} bytes; at most {MAX_BYTES:,} are read. "
            "Store the images as uint8, at a smaller size, or as files in a folder."
        )
    return headers


def headers_within(stream: IO[bytes]) -> dict[str, ArrayHeader]:
    """The headers of the arrays in an .npz. Raises FileError for a decompression bomb, and like `array_header`."""
    headers: dict[str, ArrayHeader] = {}
    with zipfile.ZipFile(stream) as archive:
        entries = [e for e in archive.infolist() if e.filename.endswith(".npy")]
        if len(entries) > MOST_ARRAYS:
            raise FileError(f"{len(entries):,} arrays, but at most {MOST_ARRAYS:,} are read")
        for entry in entries:
            if entry.file_size > max(LIMITS.ratio_from, LIMITS.ratio * entry.compress_size):
                raise FileError(f"{entry.filename} unpacks to over {LIMITS.ratio:g} times its size")
            with archive.open(entry) as member:
                headers[entry.filename[:-4]] = array_header(member, entry.file_size, entry.filename)
    return headers


def array_header(file: Any, size: int, name: str) -> ArrayHeader:
    """The header of one .npy of `size` bytes. Raises ValueError if it contradicts that size."""
    reader: BinaryIO = io.BytesIO(file.read(HEADER))  # an .npy may declare 4 GB of header
    version = np.lib.format.read_magic(reader)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(reader)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(reader)
    if dtype.hasobject:
        raise ValueError(f"{name} contains Python objects, which require pickle and are never loaded")
    declared, present = int(np.prod(shape, dtype=object)) * dtype.itemsize, size - reader.tell()
    if declared != present:
        raise ValueError(f"{name} declares {declared:,} bytes of numbers and has {present:,}")
    return ArrayHeader(tuple(shape), dtype)


def is_images(header: ArrayHeader) -> bool:
    """Whether an array may contain images, judging by its shape and type."""
    shape, kind = header.shape, header.dtype.kind
    return kind in "uifb" and (
        len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3, 4) or shape[1] in (1, 3, 4)))
    )


def read_arrays(file: Given) -> list[Stack]:
    """The images of an .npz or .npy: one stack, or two if the file has x_train and x_test.

    Raises UserError like `read_headers`, and for shapes, types or values that cannot be images.
    """
    path, headers = path_of(file), read_headers(file)
    try:
        with parsing("NumPy file"), open_file(file) as stream:
            loaded = np.load(stream, allow_pickle=False)
            arrays = {"arr_0": loaded} if path.suffix.lower() == ".npy" else {k: loaded[f"{k}.npy"] for k in headers}
    except FileError as error:
        raise UserError(f"{path} is damaged ({error}). Write it again.") from None
    pair = [(x, y, s) for (x, y), s in ((TRAIN, "train"), (TEST, "validation")) if x in arrays]
    if pair:
        if len(pair) == 1:
            pair = [(pair[0][0], pair[0][1], None)]  # type: ignore[list-item]
        keys: list[tuple[str, str | None, str | None]] = [(x, y if y in arrays else None, s) for x, y, s in pair]
    else:
        x = next((k for k in IMAGE_KEYS if k in arrays), None)
        if x is None:
            raise UserError(f"{path} has the arrays {', '.join(arrays) or 'none'}; accepted: {KEYS}. Rename them.")
        keys = [(x, next((k for k in LABEL_KEYS if k in arrays), None), None)]
    names = [str(v) for v in arrays[CLASS_NAMES].ravel()] if CLASS_NAMES in arrays else None
    stacks = [_stack(path, arrays, x, y, split, names) for x, y, split in keys]
    used = {CLASS_NAMES} | {k for x, y, _ in keys for k in (x, y) if k} | {k for s in stacks for k in s.columns}
    unused = [k for k in arrays if k not in used]
    if unused:
        stacks[0].notes.append(Omission(f"arrays not used: {', '.join(unused)}"))
    return stacks


def _stack(
    path: Path, arrays: Mapping[str, NDArray[Any]], x: str, y: str | None, split: str | None, names: list[str] | None
) -> Stack:
    notes: list[str] = []
    pixels, unusable = _to_bytes(path, x, _channels_last(path, x, arrays[x], notes), notes)
    columns: dict[str, list[Any]] = {}
    if y is not None:
        columns["label"] = _labels(path, y, arrays[y], len(pixels), names)
    elif names is not None:
        notes.append(Omission(f"{CLASS_NAMES} is not used: there are no labels ({' or '.join(LABEL_KEYS)})"))
    if x in IMAGE_KEYS:  # other vectors of the same length are metadata columns
        for key, array in arrays.items():
            if (
                key not in (x, y, CLASS_NAMES)
                and array.ndim == 1
                and len(array) == len(pixels)
                and array.dtype.kind in "buifU"
            ):
                columns[key] = array.tolist()
    return Stack(pixels, columns, split, x, unusable, notes)


def _channels_last(path: Path, key: str, array: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) to (N, H, W, C)."""
    shape = array.shape
    if 0 in shape:
        raise UserError(f"{path}: {key} has the shape {shape}, which contains no images.")
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4 and shape[3] in (1, 3, 4):
        if shape[1] in (1, 3, 4):
            notes.append(f"{key} {shape} is read as (images, height, width, channels)")
        return array
    if array.ndim == 4 and shape[1] in (1, 3, 4):
        return np.moveaxis(array, 1, 3)
    raise UserError(
        f"{path}: {key} has the shape {shape}. Accepted: (N, H, W), (N, H, W, C) or (N, C, H, W) "
        "with C = 1, 3 or 4. Reshape it (for flat images of 64 numbers: x.reshape(-1, 8, 8))."
    )


def _to_bytes(path: Path, key: str, array: NDArray[Any], notes: list[str]) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """The array as uint8, and rows that contain a number that is not finite, with that reason."""
    if array.dtype == np.uint8:
        return array, {}
    if array.dtype == np.bool_:
        notes.append(f"{key} is boolean: read as black and white")
        return array.astype(np.uint8) * 255, {}
    if array.dtype == np.uint16:
        notes.append(f"{key} has 16 bits per channel: scaled to 8")
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8), {}
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path}: {key} is of type {array.dtype}. Accepted: uint8 (0 to 255) or floats in [0, 1].")
    finite = np.isfinite(array).all(axis=(1, 2, 3))  # (N,)
    unusable = {int(i): "contains a number that is not finite" for i in np.flatnonzero(~finite)}
    good = array[finite] if unusable else array
    low, high = (good.min(), good.max()) if len(good) else (0, 0)
    top = 255 if array.dtype.kind in "iu" else 1
    if low < 0 or high > top:
        raise UserError(
            f"{path}: {key} is {array.dtype} with values from {low:g} to {high:g}. "
            "Accepted: uint8 (0 to 255) or floats in [0, 1]. Scale it, e.g. x = (x - x.min()) / (x.max() - x.min())."
        )
    notes.append(f"{key} is {array.dtype} in [0, {top}]: rounded to 256 levels")
    safe = np.nan_to_num(array, nan=0, posinf=0, neginf=0)
    return (safe if top == 255 else np.rint(safe * 255)).astype(np.uint8), unusable


def _labels(path: Path, key: str, array: NDArray[Any], n: int, names: list[str] | None) -> list[Any]:
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.shape != (n,) or flat.dtype.kind not in "buiU":
        raise UserError(
            f"{path}: {key} has the shape {array.shape} and type {array.dtype}; {n} integers or names are needed, one "
            "per image (for one-hot rows: y.argmax(1))."
        )
    values = flat.tolist()
    if names is None or flat.dtype.kind == "U":
        return [str(v) for v in values]
    if min(values) < 0 or max(values) >= len(names):
        raise UserError(
            f"{path}: {key} has values from {min(values)} to {max(values)}, but {CLASS_NAMES} has {len(names)} names "
            f"(0 to {len(names) - 1})."
        )
    return [names[v] for v in values]
