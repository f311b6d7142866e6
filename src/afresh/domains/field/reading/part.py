"""The field of one file: its arrays side by side as channels, its grid, and what is given with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission, UserError
from afresh.data.files import FileError
from afresh.domains.field.fields import Fields
from afresh.domains.field.reading.arranged import Arranged, Piece, channel_names, lay_out
from afresh.domains.field.reading.axes import Axes, given_axes, matching_axes, tell_axes
from afresh.domains.field.reading.contents import Contents, Variable
from afresh.domains.field.reading.grid import Boundary, named_boundary, spacing_of, time_step
from afresh.domains.field.reading.names import CHANNEL, SAMPLE, TIME
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.roles import divide, missing_name

COLUMNS = 16  # numbers of each trajectory that one array may hold
LOOKED = 8  # trajectories, whose first states are compared with an input


@dataclass(frozen=True)
class FilePart:
    """The field of one file, with the choices made in reading it, and no boundary yet. roles: those of the axes of each
    array of it. attributes: numbers that hold for the whole file. periodic: what the file says of axes of space."""

    name: str
    fields: Fields
    periodic: Mapping[str, Boundary]
    attributes: Mapping[str, float]
    roles: Mapping[str, tuple[str, ...]]
    decisions: tuple[str, ...]


def read_part(name: str, contents: Contents, options: ReadingOptions, first: FilePart | None = None) -> FilePart:
    """The field of a file. `first`: that of the first file of a folder, whose axes are those of all.

    Raises FileError if the file has no field, and UserError for what must be set.
    """
    return _FileReader(name, contents, options, first).part()


class _FileReader:
    """What is known so far of the field of one file. sizes: the length of each axis by its role. points: those of the
    axes of space, in their order. main: the axes of the array that has most."""

    def __init__(self, name: str, contents: Contents, options: ReadingOptions, first: FilePart | None) -> None:
        self.name, self.contents, self.options = name, contents, options
        self.parts = divide(name, contents, options)
        self.decisions = list(contents.decisions)
        self.axes = self._axes(first)
        self.main = max(self.axes.values(), key=lambda axes: len(axes.roles))
        self.sizes = self._sizes()
        self.points = {role: self.sizes[role] for role in self.main.space}

    def part(self) -> FilePart:
        self._describe()
        values, channels, units = self._arranged()
        spacing, uneven = self._spacing()
        step = self._step()
        self._leave_out_first_state(values)
        static, parameters = self._others()
        for axis in uneven:
            coordinate = np.asarray(self.parts.coordinates[axis].read(), np.float32)
            static[f"coordinate_{axis}"] = lay_out(coordinate, (axis,), SAMPLE, self.points)[:, 0]
        axes, count = tuple(self.points), values.shape[0]
        sources = (self.name,) if count == 1 else tuple(f"{self.name}, trajectory {i}" for i in range(count))
        no = (False,) * len(axes)
        fields = Fields(values, channels, units, spacing, step, no, static, parameters, axes, sources)
        roles = {key: a.roles for key, a in self.axes.items()}
        known = self._boundaries(spacing)
        return FilePart(self.name, fields, known, self.contents.parameters, roles, tuple(self.decisions))

    def _axes(self, first: FilePart | None) -> dict[str, Axes]:
        """The axes of each array of the field. Those of one shape that say nothing of themselves have the same ones."""
        out: dict[str, Axes] = {}
        for key, variable in self.parts.fields.items():
            known = None if first is None else first.roles.get(key)
            looks = {k: (self.parts.fields[k].shape, self.parts.fields[k].dims) for k in out}
            alike = next((k for k, look in looks.items() if look == (variable.shape, variable.dims)), None)
            if self.options.axes is not None:
                out[key] = given_axes(f"{key} of {self.name}", variable.shape, self.options.axes)
            elif alike is not None:
                out[key] = out[alike]
            elif known is not None and len(known) == len(variable.shape):
                out[key] = Axes(known, ("as in the first file",) * len(known))
            else:
                given_with = self.parts.rest[self.parts.pair].shape if self.parts.pair else None
                out[key] = tell_axes(f"{key} of {self.name}", variable, self.parts.coordinates, given_with)
        return out

    def _sizes(self) -> dict[str, int]:
        """The length of each axis by its role. Raises FileError if arrays do not agree."""
        sizes: dict[str, int] = {}
        for key, variable in self.parts.fields.items():
            for role, length in zip(self.axes[key].roles, variable.shape, strict=True):
                if not length:
                    raise FileError(f"{key} {variable.shape} has no values")
                if role != CHANNEL and sizes.setdefault(role, length) != length:
                    raise FileError(
                        f"{key} has {length:,} entries along {role}, and the arrays before it {sizes[role]:,}: choose "
                        "those that agree with `data.channels`"
                    )
        return sizes

    def _describe(self) -> None:
        self.decisions.append(f"the field is {', '.join(self.parts.fields)}: {self.parts.reason}")
        told: set[tuple[tuple[int, ...], tuple[str, ...]]] = set()
        for key, variable in self.parts.fields.items():
            if (variable.shape, self.axes[key].roles) not in told:
                self.decisions.append(self.axes[key].describe(key, variable.shape))
                told.add((variable.shape, self.axes[key].roles))

    def _arranged(self) -> tuple[Arranged, tuple[str, ...], tuple[str, ...]]:
        """Values, names of channels and units. Raises UserError for a channel that does not exist."""
        pieces, channels, units, known = list[Piece](), list[str](), list[str](), list[str]()
        dtypes: set[Any] = {np.dtype(np.float32)}
        for key, variable in self.parts.fields.items():
            names = channel_names(key, variable, self.axes[key].roles, tuple(self.points))
            known += [key, *names] if names != [key] else names
            chosen = self.options.channels
            taken = [i for i, n in enumerate(names) if chosen is None or {key, n} & {*chosen}]
            if not taken:
                continue
            pieces.append(Piece(variable, self.axes[key].roles, tuple(taken)))
            channels += [names[i] for i in taken]
            units += [variable.unit] * len(taken)
            dtypes.add(_working_type(key, variable, self.decisions))
        for wanted in self.options.channels or ():
            if wanted not in known:
                raise missing_name(self.name, "channels", wanted, known)
        shape = (self.sizes.get(SAMPLE, 1), self.sizes.get(TIME, 1), len(channels), *self.points.values())
        fill = tuple(v for v in self.options.fill or () if not np.isnan(v))
        values = Arranged(tuple(pieces), shape, np.dtype(np.result_type(*dtypes)), self.points, fill)
        return values, tuple(channels), tuple(units)

    def _spacing(self) -> tuple[tuple[float, ...], list[str]]:
        """The distance of points along each axis, and the axes along which it is not the same everywhere."""
        if (given := self.options.spacing) is not None:
            if len(given) not in (1, len(self.points)) or min(given) <= 0:
                raise UserError(
                    f"`data.spacing={','.join(f'{s:g}' for s in given)}` does not fit the axes of space "
                    f"{', '.join(self.points)}. Give one positive number, or one for each of them.",
                    "spacing_wrong",
                )
            return tuple(given[i % len(given)] for i in range(len(self.points))), []
        out: list[float] = []
        uneven: list[str] = []
        for axis, points in self.points.items():
            coordinate = self.parts.coordinates.get(axis)
            if coordinate is None or coordinate.shape != (points,):
                self.decisions.append(f"{axis} has no coordinates: points are 1 apart (`data.spacing` sets it)")
                out.append(1.0)
                continue
            distance, even = spacing_of(f"{axis} of {self.name}", coordinate.read())
            out.append(distance)
            unit = f" {coordinate.unit}" if coordinate.unit else ""
            if not even:
                uneven.append(axis)
                self.decisions.append(
                    f"{axis} is spaced unevenly, {distance:g}{unit} on average: where each point lies becomes an input"
                )
            elif unit:
                self.decisions.append(f"{axis}: the distance of points is {distance:g}{unit}")
        return tuple(out), uneven

    def _step(self) -> float:
        if self.options.step is not None:
            return self.options.step
        if TIME not in self.sizes:
            self.decisions.append("no time axis: each trajectory is one state")
            return 1.0
        times = self.parts.coordinates.get(TIME)
        if times is None or times.shape != (self.sizes[TIME],):
            self.decisions.append("states have no times: they are 1 apart (`data.step` sets it)")
            return 1.0
        step = time_step(f"time of {self.name}", times.read())
        if times.unit:
            self.decisions.append(f"the time between states is {step:g} {times.unit.split(' since ')[0]}")
        return step

    def _boundaries(self, spacing: Sequence[float]) -> dict[str, Boundary]:
        """What the file or the names of axes say of boundaries."""
        out: dict[str, Boundary] = {}
        coordinates, periodic = self.parts.coordinates, self.contents.periodic
        for axis, distance in zip(self.points, spacing, strict=True):
            unit = coordinates[axis].unit if axis in coordinates else ""
            named = named_boundary(axis, self.points[axis], distance, unit) if axis in coordinates else None
            if axis in periodic:
                says = periodic[axis]
                out[axis] = Boundary(says, f"{'periodic' if says else 'not periodic'}: the file says so")
            elif named is not None:
                out[axis] = named
        return out

    def _leave_out_first_state(self, values: Arranged) -> None:
        """The input of an operator that is the first state of its output tells nothing new, and is left out."""
        parts = self.parts
        given = parts.rest.get(parts.pair)
        roles = None if given is None else matching_axes(given, self.main, self.sizes)
        if given is None or roles is None or roles[:1] != (SAMPLE,) or values.shape[1] < 2:
            return
        for trajectory in range(min(LOOKED, values.shape[0])):
            state = values[trajectory, slice(0, 1)][0]  # (channels, *space)
            start = np.asarray(given.read((trajectory, *(slice(None),) * (len(roles) - 1))))
            close = 1e-6 * float(np.abs(state).max() or 1)
            if start.shape != state.shape[1:] or not np.allclose(state, start, rtol=1e-4, atol=close):
                return
        self.decisions.append(Omission(f"{parts.pair} is not an input but a first state of {', '.join(parts.fields)}"))
        self.parts = replace(parts, pair="", rest={k: v for k, v in parts.rest.items() if k != parts.pair})

    def _others(self) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float64]]]:
        """Inputs that do not change in time, and parameters. What is neither is left out with its reason.

        Raises UserError for an array that was named and does not fit.
        """
        options, points = self.options, self.points
        static: dict[str, NDArray[np.float32]] = {}
        parameters: dict[str, NDArray[np.float64]] = {}
        count = self.sizes.get(SAMPLE, 1)
        for key, variable in self.parts.rest.items():
            as_static = key in options.static if options.static is not None else True
            as_parameter = key in options.parameters if options.parameters is not None else True
            if options.static is not None and key in options.static and key not in (options.parameters or ()):
                as_parameter = False
            numbers = _numbers(key, variable, count) if as_parameter and variable.role in ("", "parameter") else {}
            if numbers:
                parameters |= numbers
                continue
            roles = matching_axes(variable, self.main, self.sizes) if as_static else None
            if roles is not None and variable.role in ("", "static"):
                values = variable.read(tuple(slice(0, points.get(role)) for role in roles))
                arrays = lay_out(values, roles, SAMPLE, points).astype(
                    np.float32
                )  # (trajectories or 1, channels, *space)
                names = channel_names(key, variable, roles, tuple(points))
                static |= {each: arrays[:, i] for i, each in enumerate(names)}
                if missing := int((~np.isfinite(arrays)).sum()):
                    raise UserError(
                        f"{self.name}: {missing:,} of {arrays.size:,} values of the input {key} are missing or not "
                        "finite. Complete them, or choose other inputs: `data.static`.",
                        "values_missing",
                    )
                varies = "one for each trajectory" if len(arrays) > 1 else "one for all trajectories"
                self.decisions.append(f"{key} {variable.shape} is an input that does not change in time, {varies}")
                continue
            named = key in (*(options.static or ()), *(options.parameters or ()))
            problem = f"{key} {variable.shape} is not used: it does not fit the field"
            if named:
                raise UserError(
                    f"{self.name}: {problem.replace('is not used: it ', '')}. An input is {tuple(points.values())} or "
                    f"{(count, *points.values())}, a parameter ({count},).",
                    "name_unfit",
                )
            self.decisions.append(Omission(problem if as_static else f"{key} is not used: it is not among those named"))
        return static, parameters


def _working_type(key: str, variable: Variable, decisions: list[str]) -> Any:
    """The real type that holds the values of an array, with a word on a type that is not a plain number."""
    dtype = np.dtype(variable.source.dtype)
    if dtype.kind == "c":
        decisions.append(f"{key} is complex: its real and imaginary parts are learnt as two channels")
    if (variable.scale, variable.offset) != (1.0, 0.0):
        decisions.append(f"{key} is packed as {dtype}: scale_factor {variable.scale:g}, add_offset {variable.offset:g}")
    elif dtype.kind in "iu":
        decisions.append(f"{key} holds whole numbers ({dtype}), which are learnt as real ones")
    if variable.missing:
        decisions.append(f"{key}: {', '.join(f'{v:g}' for v in variable.missing)} stands for missing values")
    small = dtype.itemsize <= (8 if dtype.kind == "c" else 4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if small else np.float64)


def _numbers(key: str, variable: Variable, count: int) -> dict[str, NDArray[np.float64]]:
    """An array as parameters: one number for all trajectories, one for each, or a few for each."""
    shape = variable.shape
    if int(np.prod(shape)) == 1:
        return {key: np.full(count, float(np.real(variable.read().reshape(())[()])))}
    if count == 1 or shape[:1] != (count,) or len(shape) > 2 or (len(shape) == 2 and shape[1] > COLUMNS):
        return {}
    columns = np.asarray(variable.read(), np.float64).reshape(count, -1)
    return {key if columns.shape[1] == 1 else f"{key}_{i}": columns[:, i] for i in range(columns.shape[1])}
