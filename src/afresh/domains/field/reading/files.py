"""Which files of fields lie at a path, and the arrays of one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from afresh.core import Refused
from afresh.data.files import DataFile, describes_data, must_exist, walk
from afresh.domains.field.reading.contents import Contents
from afresh.domains.field.reading.hdf5 import open_hdf5
from afresh.domains.field.reading.matlab import open_mat
from afresh.domains.field.reading.numpy_files import open_npy, open_npz
from afresh.domains.field.reading.xarray_files import is_zarr, open_netcdf, open_zarr

ZARR = ".zarr"
OPEN: dict[str, Callable[[Path], Contents]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".mat": open_mat,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".hdf": open_hdf5,
    ".he5": open_hdf5,
    ".nc": open_netcdf,
    ".nc4": open_netcdf,
    ".cdf": open_netcdf,
    ZARR: open_zarr,
}


def open_contents(file: DataFile) -> Contents:
    """The arrays of a file, none of which need be read yet. Raises FileError."""
    return OPEN[_suffix(file.path)](file.path)


def field_files(path: Path) -> tuple[list[DataFile], list[Refused]]:
    """The files of arrays at a path, sorted by name, and what else is there. A store of Zarr, which is a folder, counts
    as a file. Raises UserError if the path does not exist or is empty."""
    must_exist(path)
    if is_zarr(path):
        return [DataFile(path, path.name, 0)], []
    stores: list[DataFile] = []

    def leave_out(name: str, folder: bool) -> str | None:
        if folder and is_zarr(path / name):
            stores.append(DataFile(path / name, name, 0, path))
            return "a store of Zarr"
        return None

    files, refused = walk(path, leave_out)
    kept = [r for r in refused if r.source.rstrip("/") not in {s.name for s in stores}]
    for file in files:
        if _suffix(file.path) not in OPEN:
            about = "describes the data" if describes_data(file.name) else "not a file of arrays"
            kept.append(Refused(file.name, f"{about} ({file.suffix or 'no suffix'})" if "not" in about else about))
    usable = [file for file in files if _suffix(file.path) in OPEN]
    return sorted([*usable, *stores], key=lambda file: file.name), kept


def _suffix(path: Path) -> str:
    return ZARR if path.is_dir() else path.suffix.lower()
