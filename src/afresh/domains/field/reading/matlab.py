"""Arrays of MATLAB's .mat files: version 5 by SciPy, which reads them whole, and version 7.3, which is HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from afresh.core import Omission
from afresh.data.files import FileError, open_file
from afresh.data.limits import parsing
from afresh.domains.field.reading.contents import (
    Contents,
    Converted,
    Reversed,
    Source,
    check_unpacked,
    check_whole,
    text,
    unnamed,
)
from afresh.domains.field.reading.hdf5 import SIGNATURE, check_stored, open_group

SIZES = {"double": 8, "single": 4, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2}
SIZES |= {"int8": 1, "uint8": 1, "logical": 1}  # bytes of a number of each class that is read
COMPLEX = 2  # times as many bytes, if the numbers are complex, which the list of a file does not say


def open_mat(path: Path) -> Contents:
    """The numeric arrays of a .mat. Raises FileError if it is damaged or more than memory holds."""
    with open_file(path) as stream:
        head = stream.read(1024)
    return _version_7(path) if SIGNATURE in head[512:520] or head[:8] == SIGNATURE else _version_5(path)


def _version_5(path: Path) -> Contents:
    from scipy.io import loadmat, whosmat

    with parsing("MATLAB file"):
        listed = [(name, shape, kind) for name, shape, kind in whosmat(str(path))]
        wanted = [(name, shape, SIZES[kind]) for name, shape, kind in listed if kind in SIZES]
        size = sum(int(np.prod(shape, dtype=object)) * bytes_ for _, shape, bytes_ in wanted)
        check_unpacked(path.name, size, path.stat().st_size)
        check_whole(path.name, COMPLEX * size)
        loaded = loadmat(str(path), variable_names=[name for name, _, _ in wanted]) if wanted else {}
    other = [f"{name} ({kind})" for name, _, kind in listed if kind not in SIZES]
    return _contents({name: loaded[name] for name, _, _ in wanted}, other)


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
            check_stored(name, array)
            arrays[name] = Reversed(_as_complex(array))  # MATLAB writes the first axis last
    return _contents(arrays, other)


def _as_complex(array: Any) -> Source:
    if array.dtype.names is None:
        source: Source = array
        return source
    if array.dtype.names != ("real", "imag"):
        raise FileError(f"{array.name} is of the type {array.dtype}, which is no number")
    return Converted(array, np.dtype(np.result_type(array.dtype["real"], np.complex64)))


def _contents(arrays: dict[str, Source], other: list[str]) -> Contents:
    """With vectors and numbers, to which MATLAB gives two axes, as such."""
    notes = [Omission(f"not read, since they are no arrays of numbers: {', '.join(other)}")] if other else []
    flat = {k: np.ravel(a[:, :]) if len(a.shape) == 2 and 1 in a.shape else a for k, a in arrays.items()}
    return Contents({k: unnamed(a[0] if a.shape == (1,) else a) for k, a in flat.items()}, decisions=notes)
