"""Arrays of MATLAB's .mat files: version 5 by SciPy, which reads them whole, and version 7.3, which is HDF5."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission
from afresh.data.files import FileError, open_file
from afresh.data.limits import parsing
from afresh.domains.field.reading.contents import (
    Contents,
    Key,
    Source,
    View,
    check_unpacked,
    check_whole,
    text,
    unnamed,
)
from afresh.domains.field.reading.hdf5 import SIGNATURE, Stored, open_group
from afresh.domains.field.reading.unpacking import check_chunk

SIZES = {"double": 8, "single": 4, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2}
SIZES |= {"int8": 1, "uint8": 1, "logical": 1}  # bytes of a number of each class that is read
COMPLEX = 2  # times as many bytes, if the numbers are complex, which the list of a file does not say
START, PACKED = 128, 15  # where the elements of version 5 begin, and the kind of those that are packed
NUMERIC = {6: 8, 7: 4, 8: 1, 9: 1, 10: 2, 11: 2, 12: 4, 13: 4, 14: 8, 15: 8}  # bytes of a number, by its class
HEAD = 4096  # bytes in which an element has its class, dimensions and name


def open_mat(path: Path) -> Contents:
    """The numeric arrays of a .mat. Raises FileError if it is damaged or more than memory holds."""
    with open_file(path) as stream:
        head = stream.read(1024)
    return _version_7(path) if SIGNATURE in head[512:520] or head[:8] == SIGNATURE else _version_5(path)


def _version_5(path: Path) -> Contents:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import matfile_version

    with parsing("MATLAB file"):
        if matfile_version(str(path))[0] == 1:
            _check_elements(path)
        listed = [(name, shape, kind) for name, shape, kind in whosmat(str(path))]
        if len({name for name, _, _ in listed}) < len(listed):
            raise FileError("two of its arrays have one name: save it again")
        wanted = [(name, shape, SIZES[kind]) for name, shape, kind in listed if kind in SIZES]
        size = sum(int(np.prod(shape, dtype=object)) * bytes_ for _, shape, bytes_ in wanted)
        check_unpacked(path.name, size, path.stat().st_size)
        check_whole(path.name, COMPLEX * size)
        loaded = loadmat(str(path), variable_names=[name for name, _, _ in wanted]) if wanted else {}
    other = [f"{name} ({kind})" for name, _, kind in listed if kind not in SIZES]
    return _contents({name: loaded[name] for name, _, _ in wanted}, other)


def _check_elements(path: Path) -> None:
    """Raises FileError for a packed element that unpacks to more than the array in it declares.

    Sources: MathWorks, MAT-File Format, R2024a, chapter 1 (version 5).
    """
    with open_file(path) as stream:
        order = "<" if stream.read(START)[-2:] == b"IM" else ">"
        while tag := stream.read(8):
            kind, length = struct.unpack(f"{order}II", tag)
            if kind != PACKED:
                stream.seek(length, 1)
                continue
            packed = stream.read(length)
            name, most = _declared(zlib.decompressobj().decompress(packed, HEAD), order)
            if most is not None:
                check_unpacked(name, most // COMPLEX, path.stat().st_size)
                check_chunk(name, "zlib", packed, most)


def _declared(head: bytes, order: str) -> tuple[str, int | None]:
    """The name of an array and the bytes that its element has at most, from how it begins: None for what is not of
    numbers, of which no values are read. Raises FileError if its name does not end within `HEAD` bytes."""
    kind = head[16 if order == "<" else 19]
    at, found = 24, []
    for _ in range(2):  # dimensions and name
        small, length = struct.unpack_from(f"{order}II", head, at)
        start, end = (at + 4, at + 8) if small >> 16 else (at + 8, at + 8 + -(-length // 8) * 8)
        found.append(head[start : start + (small >> 16 or length)])
        at = end
    if at > HEAD:
        raise FileError(f"the name or the dimensions of an array take over {HEAD:,} bytes: save it again")
    shape = struct.unpack(f"{order}{len(found[0]) // 4}i", found[0])
    parts = COMPLEX * (16 + math.prod(shape) * NUMERIC.get(kind, 0))  # with a tag before each, and up to 8 bytes after
    return found[1].decode("latin-1"), at + parts if kind in NUMERIC else None


def _version_7(path: Path) -> Contents:
    file = open_group(path)
    arrays: dict[str, Source] = {}
    other: list[str] = []
    with parsing("MATLAB file"):
        for name, array in file.items():
            kind = text(array.attrs.get("MATLAB_class", ""))
            if kind not in SIZES or "MATLAB_empty" in array.attrs or array.shape is None:
                other += [] if name.startswith("#") else [f"{name} ({kind or 'unknown'})"]
                continue
            arrays[name] = _stored(array)
        return _contents(arrays, other)


def _stored(array: Any) -> Source:
    """An array of version 7.3 with its axes in the opposite order, since MATLAB writes the first one last. Complex
    numbers are pairs of a real and an imaginary part."""
    stored = Stored(array)
    if array.dtype.names not in (None, ("real", "imag")):
        raise FileError(f"{array.name} is of the type {array.dtype}, which is not a number")
    dtype = np.dtype(np.result_type(array.dtype["real"], np.complex64)) if array.dtype.names else array.dtype

    def read(key: Key) -> NDArray[Any]:
        part = stored[tuple(reversed(key))]
        return part.view(dtype).reshape(part.shape).T

    return View(tuple(reversed(stored.shape)), dtype, read)


def _contents(arrays: dict[str, Source], other: list[str]) -> Contents:
    """With vectors and numbers, to which MATLAB gives two axes, as such."""
    notes = [Omission(f"not read, since they are no arrays of numbers: {', '.join(other)}")] if other else []
    flat = {k: np.ravel(a[:, :]) if len(a.shape) == 2 and 1 in a.shape else a for k, a in arrays.items()}
    return Contents({k: unnamed(a[0] if a.shape == (1,) else a) for k, a in flat.items()}, decisions=notes)
