"""Arrays of NetCDF and Zarr with names of axes and attributes of the CF conventions, by xarray."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission
from afresh.data.files import FileError, open_file
from afresh.data.limits import Limits, Meter, parsing
from afresh.domains.field.reading.contents import (
    NUMBERS,
    Contents,
    Key,
    Variable,
    View,
    by_attributes,
    check_unpacked,
)
from afresh.domains.field.reading.extras import library
from afresh.domains.field.reading.hdf5 import Stored, open_group
from afresh.domains.field.reading.names import CF_AXES, axis_of
from afresh.domains.field.reading.zarr_store import open_store

CLASSIC = b"CDF"  # with which a file of NetCDF 3 begins; any other one is HDF5
ZARR_FILES = (".zgroup", ".zarray", "zarr.json")  # one of which is in the folder of a store
LIMITS = Limits(items=100_000)  # groups and arrays of a store


def is_zarr(path: Path) -> bool:
    """Whether a folder is a store of Zarr."""
    return path.is_dir() and any((path / name).is_file() for name in ZARR_FILES)


def open_netcdf(path: Path) -> Contents:
    """The variables of a NetCDF file, none of which is read yet. Raises FileError if it is damaged."""
    library("netCDF4", path)
    h5py = library("h5py", path)
    with open_file(path) as stream:
        classic = stream.read(len(CLASSIC)) == CLASSIC
    if classic:
        # The library does not notice that a file is shorter than its header declares.
        from scipy.io import netcdf_file

        with parsing("NetCDF file"), netcdf_file(str(path), mmap=False, maskandscale=False) as header:
            for key, variable in header.variables.items():
                if math.prod(variable.shape) and not variable.data.size:
                    raise FileError(f"{key} is cut off: write the file again")
        return _opened(path, path, "netcdf4")
    file = open_group(path, tree=True)
    with parsing("NetCDF file"):
        stored = {name: Stored(array) for name, array in file.items() if isinstance(array, h5py.Dataset)}
        for array in stored.values():
            if len(array.shape) == 1:  # the library reads coordinates when it opens a file
                array.check((slice(None),))
        groups = [name for name, member in file.items() if isinstance(member, h5py.Group)]
    notes = [Omission(f"groups of the file are not read: {', '.join(groups)}")] if groups else []
    found = _opened(path, path, "netcdf4", stored)
    return replace(found, decisions=[*found.decisions, *notes])


def open_zarr(path: Path) -> Contents:
    """The arrays of a Zarr store, none of which is read yet. Raises FileError if it is damaged."""
    zarr = library("zarr", path)
    with parsing("Zarr store"), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of folders that are no arrays, as those that the store leaves out
        store = open_store(zarr, path)
        root = zarr.open(store, mode="r")
        arrays = {"field": root} if isinstance(root, zarr.Array) else dict(_zarr_arrays(zarr, root, Meter(LIMITS)))
        decisions: list[str] = [
            Omission(f"{name} is not read: its values are {kind}, no numbers") for name, kind in store.left_out.items()
        ]
        for name, array in arrays.items():
            check_unpacked(name, array.nbytes, array.nbytes_stored())
            if absent := array.nchunks - array.nchunks_initialized:
                decisions.append(
                    f"{name}: {absent:,} of {array.nchunks:,} chunks are not in the store and count as its fill "
                    f"value, {array.fill_value}"
                )
        named = not isinstance(root, zarr.Array) and all("/" not in n and _dims(a) for n, a in arrays.items())
        if named and arrays:
            found = _opened(path, store, "zarr", consolidated=False)
            return replace(found, decisions=[*found.decisions, *decisions])
        variables = {
            name: by_attributes(array, _dims(array) or ("",) * array.ndim, dict(array.attrs))
            for name, array in arrays.items()
        }
        return Contents(variables, decisions=decisions)


def _zarr_arrays(zarr: Any, group: Any, meter: Meter, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, member in group.members():
        meter.add(items=1)
        if isinstance(member, zarr.Array):
            yield prefix + name, member
        else:
            yield from _zarr_arrays(zarr, member, meter, f"{prefix}{name}/")


def _dims(array: Any) -> tuple[str, ...]:
    """The names of the axes of an array of Zarr; none if it has none."""
    version_3 = array.metadata.dimension_names if array.metadata.zarr_format == 3 else None
    return tuple(str(d or "") for d in version_3 or array.attrs.get("_ARRAY_DIMENSIONS", ()))


def _lazy(variable: Any, stored: Stored | None) -> View:
    """A variable of xarray, decoded, of which only the part that is asked for is read. stored: the same array of an
    HDF5 file, which looks at its chunks first."""

    def read(key: Key) -> NDArray[Any]:
        if stored is not None:
            stored.check(key)
        return np.asarray(variable[key].values)

    return View(tuple(variable.shape), variable.dtype, read)


def _opened(
    path: Path, source: Any, engine: str, stored: Mapping[str, Stored] = MappingProxyType({}), **options: bool
) -> Contents:
    """The variables of a file or a store at a path. Times stay numbers, since steps of time are wanted, not dates."""
    xarray = library("xarray", path)
    with parsing("file"):
        data = xarray.open_dataset(
            source, engine=engine, chunks=None, cache=False, decode_times=False, backend_kwargs=options or None
        )
        decisions: list[str] = []
        roles = {name: _axis(name, data[name].attrs) for name in data.variables if data[name].ndim == 1}
        variables: dict[str, Variable] = {}
        for name, variable in data.variables.items():
            if variable.dtype.kind not in NUMBERS:
                decisions.append(Omission(f"{name} is not read: its values are {variable.dtype}, no numbers"))
                continue
            dims = tuple("" if str(d).startswith("phony_dim") else roles.get(d) or str(d) for d in variable.dims)
            coordinate = name in data.coords and variable.ndim == 1
            variables[roles.get(name) or str(name) if coordinate else str(name)] = Variable(
                _lazy(variable, stored.get(str(name))),
                dims,
                str(variable.attrs.get("units", "")),
                role="coordinate" if coordinate else "",
            )
            packed = {k: variable.encoding[k] for k in ("scale_factor", "add_offset") if k in variable.encoding}
            if packed:
                numbers = " and ".join(f"{k} {float(v):g}" for k, v in packed.items())
                decisions.append(f"{name} is packed as {variable.encoding.get('dtype')}: {numbers} are applied")
    return Contents(variables, decisions=decisions)


def _axis(name: Any, attributes: Any) -> str:
    """What a coordinate is by its attributes of the CF conventions; "" if they say nothing that its name does not."""
    if axis_of(str(name)):
        return ""
    return axis_of(str(attributes.get("standard_name", ""))) or CF_AXES.get(str(attributes.get("axis", "")), "")
