"""Arrays of NumPy files: .npy and .npz, without pickle, and read a part at a time where they are not compressed."""

from __future__ import annotations

import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission
from afresh.data.files import FileError, open_file
from afresh.data.image.arrays import MOST_ARRAYS, array_header
from afresh.data.limits import parsing
from afresh.domains.field.reading.contents import NUMBERS, Contents, Key, Source, check_unpacked, check_whole, unnamed

ALONE = "field"  # the name of the array of an .npy, which has none
LOCAL_HEADER = 30  # bytes of the header before each member of a .zip, which ends in the lengths of name and extra field


def open_npy(path: Path) -> Contents:
    """The array of an .npy. Raises FileError if it is damaged or holds Python objects."""
    with parsing("NumPy file"), open_file(path) as stream:
        array_header(stream, os.fstat(stream.fileno()).st_size, path.name)
        array = _stored(path, stream, 0)
    if array.dtype.kind not in NUMBERS:
        raise FileError(f"its values are {array.dtype}, no numbers")
    return Contents({ALONE: unnamed(array)})


def open_npz(path: Path) -> Contents:
    """The arrays of an .npz. Raises FileError if it is damaged, holds Python objects, or is more than memory holds."""
    with parsing("NumPy file"), open_file(path) as stream, zipfile.ZipFile(stream) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        if len(members) > MOST_ARRAYS:
            raise FileError(f"{len(members):,} arrays, but at most {MOST_ARRAYS:,} are read")
        compressed = [m for m in members if m.compress_type != zipfile.ZIP_STORED]
        check_unpacked(path.name, sum(m.file_size for m in compressed), sum(m.compress_size for m in compressed))
        check_whole(path.name, sum(m.file_size for m in compressed))
        arrays = {m.filename[:-4]: _member(path, stream, archive, m) for m in members}
    other = [f"{name} ({a.dtype})" for name, a in arrays.items() if a.dtype.kind not in NUMBERS]
    notes = [Omission(f"not read, since they are no arrays of numbers: {', '.join(other)}")] if other else []
    return Contents({k: unnamed(a) for k, a in arrays.items() if a.dtype.kind in NUMBERS}, decisions=notes)


@dataclass(frozen=True)
class StoredArray:
    """An array that lies in a file as it is in memory. It is mapped for each part that is read: pages of a map count as
    memory of the process for as long as it is there."""

    path: Path
    dtype: np.dtype[Any]
    start: int
    shape: tuple[int, ...]
    order: Literal["C", "F"]

    def __getitem__(self, key: Key, /) -> NDArray[Any]:
        return np.array(np.memmap(self.path, self.dtype, "r", self.start, self.shape, self.order)[key])


def _member(path: Path, stream: IO[bytes], archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Source:
    with archive.open(member) as content:
        array_header(content, member.file_size, member.filename)
    if member.compress_type == zipfile.ZIP_STORED:
        stream.seek(member.header_offset)
        lengths = struct.unpack("<HH", stream.read(LOCAL_HEADER)[-4:])
        return _stored(path, stream, member.header_offset + LOCAL_HEADER + sum(lengths))
    with archive.open(member) as content:
        array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
    return array


def _stored(path: Path, stream: IO[bytes], start: int) -> Source:
    """The array whose .npy begins at a place of a file, without being read."""
    stream.seek(start)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if not all(shape):
        return np.zeros(shape, dtype)
    return StoredArray(path, dtype, stream.tell(), shape, "F" if fortran else "C")
