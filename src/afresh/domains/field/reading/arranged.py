"""Arrays of files in the layout (trajectories, time, channels, *space), read a part at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.domains.field.fields import Values
from afresh.domains.field.reading.contents import Variable, View
from afresh.domains.field.reading.names import CHANNEL, SAMPLE, TIME


@dataclass(frozen=True)
class Piece:
    """The array of one variable, the role of each of its axes, and the channels that are taken of it."""

    variable: Variable
    roles: tuple[str, ...]
    taken: tuple[int, ...]

    def states(self, trajectory: int, times: slice, points: Mapping[str, int]) -> NDArray[Any]:
        """(time, channels, *space), with the first `points` of each axis of space."""
        key = tuple(
            trajectory if role == SAMPLE else times if role == TIME else slice(0, points.get(role))
            for role in self.roles
        )
        left = [role for role in self.roles if role != SAMPLE]
        return lay_out(self.variable.read(key), left, TIME, points)[:, list(self.taken)]


def lay_out(values: NDArray[Any], roles: Sequence[str], first: str, points: Mapping[str, int]) -> NDArray[Any]:
    """An array whose axes have these roles as (`first` or 1, channels, *space).

    points: the length of each axis of space, in its order; one that the array lacks is repeated. Complex numbers are
    two channels, all real parts before all imaginary ones.
    """
    order = [i for wanted in (first, CHANNEL, *points) for i, role in enumerate(roles) if role == wanted]
    lengths = dict(zip(roles, values.shape, strict=True))
    count, space = lengths.get(first, 1), [lengths.get(name, 1) for name in points]
    values = values.transpose(order).reshape(count, -1, *space)
    if values.dtype.kind == "c":
        values = np.concatenate([values.real, values.imag], 1)
    return np.broadcast_to(values, (*values.shape[:2], *points.values()))


def channel_names(name: str, variable: Variable, roles: Sequence[str], space: Sequence[str]) -> list[str]:
    """A name for each channel of an array: those of vectors and tensors end in the names of axes of space."""
    lengths = [n for n, role in zip(variable.shape, roles, strict=True) if role == CHANNEL]
    names = [name]
    for length in lengths:
        vector = length == len(space) and variable.role == "field"
        ends = list(space) if vector else [str(i) for i in range(length)]
        names = [f"{stem}_{end}" for stem in names for end in ends] if length > 1 else names
    complex_ = np.dtype(variable.source.dtype).kind == "c"
    return [f"{n}_{part}" for part in ("real", "imaginary") for n in names] if complex_ else names


@dataclass(frozen=True)
class Arranged:
    """The channels of several variables of one file, side by side.

    points: how many points are read of each axis of space, by its name. fill: numbers that stand for missing values
    besides those that the file declares. Missing values are NaN.
    """

    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    points: Mapping[str, int]
    fill: tuple[float, ...] = ()

    def __getitem__(self, key: tuple[int, slice], /) -> NDArray[Any]:
        first, last, _ = key[1].indices(self.shape[1])
        parts = [p.states(key[0], slice(first, last), self.points) for p in self.pieces]
        states = np.concatenate(parts, 1)
        absent = [states == np.asarray(number).astype(states.dtype) for number in self.fill]
        states = states.astype(self.dtype, copy=False)
        return np.where(np.any(absent, 0), np.asarray(np.nan, self.dtype), states) if absent else states


def join(parts: Sequence[Values]) -> Values:
    """The trajectories of several arrays, which agree in all other axes, one after the other."""
    if len(parts) == 1:
        return parts[0]
    *starts, count = accumulate((part.shape[0] for part in parts), initial=0)
    dtype = np.dtype(np.result_type(*{part.dtype for part in parts}))

    def read(key: tuple[int, slice]) -> NDArray[Any]:
        if not 0 <= key[0] < count:
            raise IndexError(f"trajectory {key[0]} of {count}")
        part = bisect_right(starts, key[0]) - 1
        return np.asarray(parts[part][key[0] - starts[part], key[1]], dtype)

    return View((count, *parts[0].shape[1:]), dtype, read)


def filled(values: Values, instead: NDArray[np.float64]) -> Values:
    """Values whose missing points are the mean of their channel, `instead` (channels,)."""
    mean = instead.astype(values.dtype).reshape(1, -1, *(1,) * (len(values.shape) - 3))

    def read(key: tuple[int, slice]) -> NDArray[Any]:
        states = np.asarray(values[key])
        return np.where(np.isfinite(states), states, mean)

    return View(values.shape, values.dtype, read)


def selected(values: Values, channels: Sequence[int]) -> Values:
    """Some channels of values, by number."""
    shape = (*values.shape[:2], len(channels), *values.shape[3:])
    return View(shape, values.dtype, lambda key: np.asarray(values[key])[:, list(channels)])


def trimmed(values: Values, points: tuple[int, ...]) -> Values:
    """Values with the first `points` of each axis of space."""
    part = (slice(None), slice(None), *(slice(0, n) for n in points))
    return View((*values.shape[:3], *points), values.dtype, lambda key: np.asarray(values[key])[part])
