"""What a file of arrays holds, whatever its format: named arrays that are read a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from afresh.data.files import MB, FileError, ZipLimits, check_memory
from afresh.data.limits import parsing

LIMITS = ZipLimits()
NUMBERS = "biufc"  # kinds of types that are read
Key = tuple[int | slice, ...]


class Source(Protocol):
    """An array that may lie in a file. It is indexed by a number or a slice with step 1 for each axis."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


Role = Literal["", "field", "static", "coordinate", "parameter"]


@dataclass(frozen=True)
class Variable:
    """One array of a file. dims: a name for each axis; "" where the file gives none. missing: the numbers that stand
    for missing values. Stored numbers are multiplied by `scale` before `offset` is added. role: what the format says
    that it is; "" if it says nothing."""

    source: Source
    dims: tuple[str, ...]
    unit: str = ""
    missing: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    role: Role = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.source.shape)

    @property
    def named(self) -> bool:
        """Whether the file says what each of its axes is."""
        return all(self.dims)

    def read(self, key: Key | None = None) -> NDArray[Any]:
        """Its values, or a part of them, with NaN for those that are missing. Raises FileError."""
        with parsing("array"):
            return decode(np.asarray(self.source[(slice(None),) * len(self.shape) if key is None else key]), self)


@dataclass(frozen=True)
class Contents:
    """The arrays of a file by name.

    periodic: whether axes of space are, as far as the format says, by name. parameters: numbers that hold for the whole
    file. decisions: what was made of the file, and what of it is left out, in words.
    """

    variables: Mapping[str, Variable]
    periodic: Mapping[str, bool] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    decisions: Sequence[str] = ()


def unnamed(source: Source) -> Variable:
    """An array known only by its shape."""
    return Variable(source, ("",) * len(source.shape))


def decode(stored: NDArray[Any], variable: Variable) -> NDArray[Any]:
    """Stored numbers as the numbers that they stand for, with NaN for missing ones."""
    packed = (variable.scale, variable.offset) != (1.0, 0.0)
    if not packed and not variable.missing:
        return stored
    absent = np.zeros(stored.shape, bool)
    for number in variable.missing:  # compared as they are stored
        absent |= stored == np.asarray(number).astype(stored.dtype)
    values = stored if stored.dtype.kind in "fc" else stored.astype(np.float64)
    values = values * variable.scale + variable.offset if packed else values
    return np.where(absent, np.asarray(np.nan, values.dtype), values) if absent.any() else values


def by_attributes(source: Source, dims: Sequence[str], attributes: Mapping[str, Any]) -> Variable:
    """An array with attributes of the CF conventions: units, _FillValue, missing_value, scale_factor, add_offset."""

    def numbers(name: str) -> list[float]:
        try:
            return [float(v) for v in np.ravel(attributes[name])] if name in attributes else []
        except (TypeError, ValueError):
            return []

    missing = {v for name in ("_FillValue", "missing_value") for v in numbers(name) if not np.isnan(v)}
    return Variable(
        source,
        tuple(dims),
        text(attributes.get("units", "")),
        tuple(sorted(missing)),
        (numbers("scale_factor") or [1.0])[0],
        (numbers("add_offset") or [0.0])[0],
    )


def text(value: Any) -> str:
    """An attribute as text."""
    first = np.ravel(np.asarray(value, object))[:1]
    value = first[0] if len(first) else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def texts(value: Any) -> list[str]:
    """An attribute that lists names."""
    return [text(v) for v in np.ravel(np.asarray(value, object))]


def check_unpacked(name: str, unpacked: int, stored: int) -> None:
    """Raises FileError for a compressed array that is so much larger than what is stored that it can hold no
    measurement."""
    if unpacked > max(LIMITS.total_from, LIMITS.ratio * stored):
        raise FileError(
            f"{name} would unpack to {unpacked / MB:,.0f} MB, over {LIMITS.ratio:g} times what is stored: a "
            "decompression bomb, or an array that was never filled. Write it again without compression if it is right"
        )


def check_whole(name: str, size: int) -> None:
    """Raises FileError if an array that can be read only as a whole needs more memory than is free."""
    try:
        check_memory(2 * size)
    except FileError as error:
        raise FileError(
            f"{name} {error}. In this format it can be read only as a whole: write it as .npy, HDF5 or Zarr, which are "
            "read a part at a time"
        ) from None


@dataclass(frozen=True)
class View:
    """An array that is made of others when a part of it is asked for: `read` makes the part of a key."""

    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[Any], NDArray[Any]]

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        return self.read(key)


def stacked(parts: Sequence[Source]) -> View:
    """Arrays of one shape as one array with one more axis before the others."""

    def read(key: Key) -> NDArray[Any]:
        first, rest = key[0], key[1:] or (slice(None),)
        if isinstance(first, slice):
            return np.stack([np.asarray(part[rest]) for part in parts[first]])
        return np.asarray(parts[first][rest])

    return View((len(parts), *parts[0].shape), np.result_type(*{part.dtype for part in parts}), read)
