"""Arrays of HDF5 files, with the layouts of the Well and of PDEBench, and groups that hold one trajectory each.

A file can name other files, whose content its library then reads as its own: by links, by external storage, and by
virtual arrays. It can also have its library load a filter, and unpack a chunk without end. `open_group` refuses such
files as a whole, before another library opens them, and `Stored` looks at each chunk before it is unpacked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission
from afresh.data.files import FileError
from afresh.data.limits import Limits, Meter, parsing
from afresh.domains.field.reading.contents import (
    NUMBERS,
    Contents,
    Key,
    Variable,
    by_attributes,
    check_unpacked,
    check_whole,
    stacked,
    text,
    texts,
    unnamed,
)
from afresh.domains.field.reading.extras import library
from afresh.domains.field.reading.names import CHANNEL, SAMPLE, TIME
from afresh.domains.field.reading.unpacking import check_chunk

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DEPTH = 20  # of groups in each other
# The filters that are built into the library, by their numbers.
FILTERS = {1: "zlib", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
FLETCHER32, SIZED, PACKING = 3, (5, 6), (1, 4, 32000)
CHECKSUM = 4  # bytes of Fletcher's
LIMITS = Limits(items=1_000_000)  # groups and arrays of a file
NUMBERED = re.compile(r"^(.*?)[-_=]?\d+$")


def open_hdf5(path: Path) -> Contents:
    """The arrays of an HDF5 file, none of which is read yet. Raises FileError if it is damaged."""
    file = open_group(path)
    with parsing("HDF5 file"):
        return _well(file) if "t0_fields" in file and "dimensions" in file else _plain(file)


def open_group(path: Path, *, tree: bool = False) -> Any:
    """The root of an HDF5 file, which stays open for as long as one of its arrays is in use. tree: whether two names of
    one group are refused, for libraries that follow each path, and end the process after too many.

    Raises FileError if the file is damaged, names another file, has a filter that is not built into the library, or
    declares far more than it stores.
    """
    h5py = library("h5py", path)
    with parsing("HDF5 file"):
        file = h5py.File(path, "r")
        for name, array in _arrays(file, Meter(LIMITS), tree=tree):
            _check_array(name, array, path.stat().st_size)
        return file


def _check_array(name: str, array: Any, file_size: int) -> None:
    properties = array.id.get_create_plist()
    if properties.get_external_count() or array.is_virtual:
        kind = "virtual" if array.is_virtual else "stored externally"
        raise FileError(
            f"{name} is {kind}: its values are in other arrays or files, and only what is in the file itself is read. "
            "Copy the values into an array of this file"
        )
    _check_filters(name, properties)
    check_unpacked(name, array.size * array.dtype.itemsize, min(array.id.get_storage_size(), file_size))
    if array.chunks:
        check_whole(f"a chunk of {name}", _chunk_bytes(array))
        for code, _, values, _ in _filters(properties):
            if code in SIZED and values[2] * values[4] > _chunk_bytes(array):
                raise FileError(f"{name} has a filter that makes more of a chunk than {name} declares: write it again")


def _properties(member: Any) -> Any:
    """With what an array or a group was created, as that of an array, whose class alone tells filters."""
    import h5py

    properties = member.id.get_create_plist()
    h5py.h5i.inc_ref(properties)  # since both objects give it back
    return h5py.h5p.PropDCID(properties.id)


def _filters(properties: Any) -> list[tuple[int, int, tuple[int, ...], bytes]]:
    return [properties.get_filter(number) for number in range(properties.get_nfilters())]


def _check_filters(name: str, properties: Any) -> None:
    """Raises FileError for a filter that is not in `FILTERS`, and for filters of which one unpacks what another one
    has packed."""
    codes = [code for code, *_ in _filters(properties)]
    if unknown := [code for code in codes if code not in FILTERS]:
        raise FileError(
            f"{name} has the filter {unknown[0]}, which is not built into HDF5. Accepted: "
            f"{', '.join(FILTERS.values())}. Write the file again with one of these (h5repack -f GZIP=4)"
        )
    before = [code for code in codes if code != FLETCHER32][:-1]
    if {*PACKING} & {*before}:
        raise FileError(
            f"{name} has the filters {', '.join(FILTERS[code] for code in codes)}. Accepted: one of zlib, szip and "
            "lzf, as the last but for fletcher32. Write the file again (h5repack -f GZIP=4)"
        )


def _chunk_bytes(array: Any) -> int:
    return math.prod(array.chunks) * int(array.id.get_type().get_size())


@dataclass(frozen=True)
class Stored:
    """An array in a file, each of whose chunks is looked at before it is first unpacked. `seen`: those that were."""

    array: Any
    seen: set[tuple[int, ...]] = field(default_factory=set)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    def __getitem__(self, key: Key, /) -> NDArray[Any]:
        self.check(key)
        return np.asarray(self.array[key])

    def check(self, key: Key) -> None:
        """Raises FileError if one of the chunks of a part unpacks to more than the array declares."""
        codes = [code for code, *_ in _filters(self.array.id.get_create_plist())]
        if not {*PACKING} & {*codes}:
            return
        starts = []
        for part, length, step in zip(key, self.shape, self.array.chunks, strict=True):
            first, last, _ = part.indices(length) if isinstance(part, slice) else (part % length, part % length + 1, 1)
            starts.append(range(first // step * step, last, step))
        for start in product(*starts):
            if start not in self.seen:
                self._check_chunk(start, codes)
                self.seen.add(start)

    def _check_chunk(self, start: tuple[int, ...], codes: list[int]) -> None:
        if not self.array.id.get_chunk_info_by_coord(start).size:
            return  # it is not in the file
        left_out, packed = self.array.id.read_direct_chunk(start)
        most = _chunk_bytes(self.array) + CHECKSUM * codes.count(FLETCHER32)
        for number, code in reversed(list(enumerate(codes))):
            if left_out >> number & 1:
                continue
            if code == FLETCHER32:
                packed = packed[:-CHECKSUM]
            elif code in PACKING:
                check_chunk(str(self.array.name), FILTERS[code], packed, most)


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
            source = stacked([v.source for v in described])
            variables[name] = replace(described[0], source=source, dims=(SAMPLE, *described[0].dims))
            if len(source.shape) > 2:
                decisions.append(f"{name}: {len(members):,} arrays with numbers in their names are trajectories")
    # PDEBench has one time more than states in some files: the end of the last step.
    times = variables.get("t-coordinate")
    lengths = {n for v in variables.values() if len(v.shape) > 1 for n in v.shape}
    if times is not None and times.shape[0] not in lengths and times.shape[0] - 1 in lengths:
        variables["t-coordinate"] = replace(times, source=times.read()[:-1])
        decisions.append("t-coordinate has one time more than there are states, as in PDEBench: the last is left out")
    numbers = {k: float(v) for k, v in file.attrs.items() if np.ndim(v) == 0 and np.asarray(v).dtype.kind in "iuf"}
    return Contents(variables, parameters=numbers, decisions=decisions)


def _arrays(
    group: Any, meter: Meter, prefix: str = "", seen: set[Any] | None = None, *, tree: bool = False
) -> Iterator[tuple[str, Any]]:
    """All arrays below a group, and each group once, whatever number of links lead to it (`seen`). Raises FileError for
    a link to another file, and for a group whose list of members is packed, which the library would unpack without
    end."""
    seen = set() if seen is None else seen
    seen.add(group["."])
    if _properties(group["."]).get_nfilters():
        raise FileError(f"the group {group.name} has a filter, which only arrays may have: write the file again")
    for name in group:
        meter.add(items=1)
        link = group.get(name, getlink=True)
        soft = type(link).__name__ == "SoftLink"
        if not soft and type(link).__name__ != "HardLink":
            raise FileError(
                f"{prefix}{name} is a link to another file, and only what is in the file itself is read. Copy what it "
                "leads to into this file, or remove the link"
            )
        member = None if soft else group[name]
        if tree and (soft or member in seen):
            raise FileError(f"{prefix}{name} is a second name of something in the file: remove the link")
        if type(member).__name__ == "Group" and member not in seen:
            if prefix.count("/") > DEPTH:
                raise FileError(f"its groups are more than {DEPTH} deep in each other: write it with fewer")
            yield from _arrays(member, meter, f"{prefix}{name}/", seen, tree=tree)
        elif type(member).__name__ == "Dataset" and member.shape is not None:  # type: ignore[union-attr]
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
    return by_attributes(Stored(array), dims, dict(array.attrs))


def _well(file: Any) -> Contents:
    """The layout of the Well: fields of tensors of order 0, 1 and 2 in groups that say how they vary."""
    space = texts(file["dimensions"].attrs["spatial_dims"])
    variables: dict[str, Variable] = {}
    decisions = ["the layout is that of the Well"]
    for order in range(3):
        for name, array in file.get(f"t{order}_fields", {}).items():
            sample, time = bool(array.attrs["sample_varying"]), bool(array.attrs["time_varying"])
            varying = [d for d, v in zip(space, np.ravel(array.attrs["dim_varying"]), strict=True) if v]
            dims = ((SAMPLE,) if sample else ()) + ((TIME,) if time else ()) + tuple(varying)
            dims += (CHANNEL,) * (array.ndim - len(dims))
            variables[name] = replace(_described(array), dims=dims, role="field" if time else "static")
    for name, array in file["dimensions"].items():
        varies = bool(array.attrs.get("sample_varying", False)) and array.ndim > 1
        variables[name] = replace(
            unnamed(Stored(array)), dims=((SAMPLE,) if varies else ()) + (name,), role="coordinate", unit=_unit(array)
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
            variables[name] = replace(unnamed(Stored(array)), role="parameter")
        else:
            parameters[name] = float(np.ravel(unnamed(Stored(array)).read())[0])
    periodic = {}
    for boundary in file.get("boundary_conditions", {}).values():
        for name in texts(boundary.attrs.get("associated_dims", [])):
            periodic[name] = text(boundary.attrs.get("bc_type", "")).lower() == "periodic"
    return Contents(variables, periodic, parameters, decisions)


def _unit(array: Any) -> str:
    return text(array.attrs.get("units", ""))
