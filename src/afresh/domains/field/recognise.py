"""Whether a path holds physical fields, by the names of its files and the arrays of the first one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from afresh.core import Sniff, UserError
from afresh.data.files import DataFile, FileError, describes_data
from afresh.domains.field.reading.contents import Contents, Variable
from afresh.domains.field.reading.files import OPEN, field_files, open_contents
from afresh.domains.field.reading.names import TIME, axis_of
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.roles import divide

SCIENTIFIC = frozenset(OPEN) - {".npy", ".npz"}  # formats that hold nothing else that this package learns


def recognise(path: Path) -> Sniff:
    """How certain it is that a path holds fields, and why.

    NumPy's files may hold images as well: they are fields if something in them says so, which is coordinates, a pair of
    operator learning, numbers that no image has, or more axes than images have.
    """
    files, others = field_files(path)
    count = len(files) + sum(not describes_data(r.source) and "not a file of arrays" in r.reason for r in others)
    if not files:
        return Sniff(0.0, f"none of its files is one of arrays ({', '.join(OPEN)})")
    share = len(files) / count
    names = f"{len(files):,} of {count:,} files are arrays"
    first = files[0]
    if all((".zarr" if file.path.is_dir() else file.suffix) in SCIENTIFIC for file in files):
        return Sniff(0.95 * share, names)
    try:
        reason = _seen(first)
    except (FileError, UserError) as error:  # reading reports what is wrong
        return Sniff(0.3 * share, f"{names}; {first.name}: {error}")
    return Sniff(
        (0.95 if reason else 0.3) * share, f"{names}; {first.name}: {reason or 'nothing says what its axes are'}"
    )


def _seen(file: DataFile) -> str:
    """What says that the arrays of a file are fields; empty if nothing does. Raises FileError and UserError."""
    contents = open_contents(file)
    parts = divide(file.name, contents, ReadingOptions())
    if parts.pair:
        return parts.reason
    if found := [name for name, variable in parts.coordinates.items() if _rises(variable)]:
        return f"coordinates {', '.join(found)}"
    return next((reason for name in parts.fields if (reason := _unlike_images(name, contents))), "")


def _unlike_images(name: str, contents: Contents) -> str:
    variable = contents.variables[name]
    dtype, axes = variable.source.dtype, len(variable.shape)
    if dtype.kind == "c" or (dtype.kind == "f" and axes >= 3 and _outside(name, contents)):
        return f"{name} {variable.shape} holds numbers that no image has"
    return f"{name} {variable.shape} has {axes} axes" if axes > 4 or axis_of(name) == TIME else ""


def _rises(variable: Variable) -> bool:
    """Whether numbers rise or fall throughout, as coordinates do and labels named y do not."""
    steps = np.diff(variable.read())
    return bool((steps > 0).all() or (steps < 0).all())


def _outside(name: str, contents: Contents) -> bool:
    """Whether numbers from the middle of an array are neither from 0 to 1 nor whole ones from 0 to 255, as those of
    images are."""
    variable = contents.variables[name]
    block = variable.read(tuple(slice(n // 2, n // 2 + 16) for n in variable.shape))
    block = block[np.isfinite(block)]
    if not block.size or (block.min() >= 0 and block.max() <= 1):
        return False
    return not (block.min() >= 0 and block.max() <= 255 and (block == np.round(block)).all())
