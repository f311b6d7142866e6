"""Arrays of HDF5 files, with the layouts of the Well and of PDEBench, and groups that hold one trajectory each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from afresh.core import Omission
from afresh.data.files import FileError
from afresh.data.limits import Limits, Meter, parsing
from afresh.domains.field.reading.contents import (
    NUMBERS,
    Contents,
    Stack,
    Variable,
    by_attributes,
    check_unpacked,
    text,
    texts,
    unnamed,
)
from afresh.domains.field.reading.extras import library
from afresh.domains.field.reading.names import CHANNEL, SAMPLE, TIME

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LIMITS = Limits(items=1_000_000)  # groups and arrays of a file
NUMBERED = re.compile(r"^(.*?)[-_=]?\d+$")


def open_hdf5(path: Path) -> Contents:
    """The arrays of an HDF5 file, none of which is read yet. Raises FileError if it is damaged."""
    file = open_group(path)
    with parsing("HDF5 file"):
        return _well(file) if "t0_fields" in file and "dimensions" in file else _plain(file)


def open_group(path: Path) -> Any:
    """The root of an HDF5 file, which stays open for as long as one of its arrays is in use."""
    h5py = library("h5py", path)
    with parsing("HDF5 file"):
        return h5py.File(path, "r")


def check_stored(name: str, array: Any) -> None:
    """Raises FileError for an array that declares far more than is stored."""
    check_unpacked(name, array.size * array.dtype.itemsize, array.id.get_storage_size())


def _plain(file: Any) -> Contents:
    """Arrays by their path, without that of a single group in which all lie. Those in groups or with names that differ
    in a number, and that have one shape, are trajectories of one array."""
    arrays = dict(_arrays(file, Meter(LIMITS)))
    decisions: list[str] = []
    if other := [name for name, a in arrays.items() if a.dtype.kind not in NUMBERS]:
        decisions.append(Omission(f"not read, since they are no arrays of numbers: {', '.join(other)}"))
    variables: dict[str, Variable] = {}
    for name, members in _trajectories({k: a for k, a in arrays.items() if k not in other}).items():
        described = [_described(a) for a in members]
        if len(members) == 1:
            variables[name] = described[0]
        elif len(described[0].shape) < 2 and all(np.array_equal(v.read(), described[0].read()) for v in described):
            variables[name] = described[0]  # one coordinate for all trajectories
        else:
            stacked = Stack(tuple(v.source for v in described))
            variables[name] = replace(described[0], source=stacked, dims=(SAMPLE, *described[0].dims))
            if len(stacked.shape) > 2:
                decisions.append(f"{name}: {len(members):,} arrays with numbers in their names are trajectories")
    _cut_times(variables, decisions)
    numbers = {k: float(v) for k, v in file.attrs.items() if np.ndim(v) == 0 and np.asarray(v).dtype.kind in "iuf"}
    return Contents(variables, parameters=numbers, decisions=decisions)


def _cut_times(variables: dict[str, Variable], decisions: list[str]) -> None:
    """PDEBench has one time more than states in some files: the end of the last step."""
    times = variables.get("t-coordinate")
    lengths = {n for v in variables.values() if len(v.shape) > 1 for n in v.shape}
    if times is not None and times.shape[0] not in lengths and times.shape[0] - 1 in lengths:
        variables["t-coordinate"] = replace(times, source=times.read()[:-1])
        decisions.append("t-coordinate has one time more than there are states, as in PDEBench: the last is left out")


def _arrays(group: Any, meter: Meter, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All arrays below a group. Links to other files are not followed."""
    for name in group:
        meter.add(items=1)
        link = group.get(name, getlink=True)
        if type(link).__name__ != "HardLink":
            continue
        member = group[name]
        if member.name in (group.name, "/") or prefix.count("/") > 20:  # a group within itself
            continue
        if type(member).__name__ == "Group":
            yield from _arrays(member, meter, f"{prefix}{name}/")
        elif type(member).__name__ == "Dataset" and member.shape is not None:
            check_stored(name, member)
            yield prefix + name, member


def _trajectories(arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Arrays whose paths differ in one number and whose shapes are equal belong together, in the order of numbers."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in arrays:
        parts = name.split("/")
        at = next((i for i, part in enumerate(parts) if NUMBERED.match(part)), None)
        if at is None:
            groups[name] = [(0, name)]
            continue
        number = int(re.findall(r"\d+$", parts[at])[0])
        stem = [re.sub(r"[-_=]?\d+$", "", parts[at])] if at == len(parts) - 1 else []
        groups.setdefault("/".join([*parts[:at], *stem, *parts[at + 1 :]]) or "field", []).append((number, name))
    out: dict[str, list[Any]] = {}
    for stem_name, members in groups.items():
        names = [name for _, name in sorted(members)]
        if len({arrays[name].shape for name in names}) == 1 and (len(names) > 1 or names[0] == stem_name):
            out[stem_name] = [arrays[name] for name in names]
        elif len(names) > 1 and "/" in names[0] and arrays[names[0]].ndim > 1:
            sizes = "; ".join(f"{name} {arrays[name].shape}" for name in names[:3])
            raise FileError(f"trajectories of different shapes: {sizes}. Write them with one shape, or in other files")
        else:
            out |= {name: [arrays[name]] for name in names}
    return out


def _described(array: Any) -> Variable:
    """An array with its attributes, and the names of its axes where they have some."""
    dims = []
    for dimension in array.dims:
        scales = dimension.keys()
        dims.append(dimension.label or (scales[0] if scales else ""))
    own = str(array.name).rsplit("/", 1)[-1]
    if not any(dims) and array.ndim == 1 and array.is_scale:
        dims = [own]
    return by_attributes(array, dims, dict(array.attrs))


def _well(file: Any) -> Contents:
    """The layout of the Well: fields of tensors of order 0, 1 and 2 in groups that say how they vary."""
    space = texts(file["dimensions"].attrs["spatial_dims"])
    variables: dict[str, Variable] = {}
    decisions = ["the layout is that of the Well"]
    for order in range(3):
        for name, array in file.get(f"t{order}_fields", {}).items():
            check_stored(name, array)
            sample, time = bool(array.attrs["sample_varying"]), bool(array.attrs["time_varying"])
            varying = [d for d, v in zip(space, np.ravel(array.attrs["dim_varying"]), strict=True) if v]
            dims = ((SAMPLE,) if sample else ()) + ((TIME,) if time else ()) + tuple(varying)
            dims += (CHANNEL,) * (array.ndim - len(dims))
            variables[name] = replace(_described(array), dims=dims, role="field" if time else "static")
    for name, array in file["dimensions"].items():
        varies = bool(array.attrs.get("sample_varying", False)) and array.ndim > 1
        variables[name] = replace(
            unnamed(array), dims=((SAMPLE,) if varies else ()) + (name,), role="coordinate", unit=_unit(array)
        )
    parameters = {}
    for name in texts(file.attrs.get("simulation_parameters", [])):
        value = np.asarray(file.attrs.get(name, np.nan))
        if value.ndim == 0 and value.dtype.kind in "iuf":
            parameters[name] = float(value)
    for name, array in file.get("scalars", {}).items():
        if array.attrs.get("time_varying", False):
            decisions.append(Omission(f"{name} is not read: it changes in time but not in space"))
        elif array.attrs.get("sample_varying", False):
            parameters.pop(name, None)
            variables[name] = replace(unnamed(array), role="parameter")
        else:
            parameters[name] = float(np.ravel(array[()])[0])
    periodic = {}
    for boundary in file.get("boundary_conditions", {}).values():
        for name in texts(boundary.attrs.get("associated_dims", [])):
            periodic[name] = text(boundary.attrs.get("bc_type", "")).lower() == "periodic"
    return Contents(variables, periodic, parameters, decisions)


def _unit(array: Any) -> str:
    return text(array.attrs.get("units", ""))
