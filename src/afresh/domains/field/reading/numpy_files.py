"""Arrays of NumPy files: .npy and .npz, without pickle, and mapped into memory where they are not compressed."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission
from afresh.data.files import FileError, open_file
from afresh.data.image.arrays import MOST_ARRAYS, array_header
from afresh.data.limits import parsing
from afresh.domains.field.reading.contents import NUMBERS, Contents, check_unpacked, check_whole, unnamed

ALONE = "field"  # the name of the array of an .npy, which has none
LOCAL_HEADER = 30  # bytes of the header before each member of a .zip, which ends in the lengths of name and extra field


def open_npy(path: Path) -> Contents:
    """The array of an .npy. Raises FileError if it is damaged or holds Python objects."""
    with parsing("NumPy file"), open_file(path) as stream:
        array_header(stream, os.fstat(stream.fileno()).st_size, path.name)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
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


def _member(path: Path, stream: IO[bytes], archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as content:
        array_header(content, member.file_size, member.filename)
    if member.compress_type == zipfile.ZIP_STORED:
        return _mapped(path, stream, member)
    with archive.open(member) as content:
        array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
    return array


def _mapped(path: Path, stream: IO[bytes], member: zipfile.ZipInfo) -> NDArray[Any]:
    """An array that is stored as it is, without being read."""
    stream.seek(member.header_offset)
    lengths = struct.unpack("<HH", stream.read(LOCAL_HEADER)[-4:])
    stream.seek(member.header_offset + LOCAL_HEADER + sum(lengths))
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if not all(shape):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", stream.tell(), shape, "F" if fortran else "C")
