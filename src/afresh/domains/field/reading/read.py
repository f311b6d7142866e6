"""From a path to fields: the arrays of each file, what they are, and all files as one, with every choice in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission, Refused, UserError
from afresh.core.plural import counted
from afresh.data.files import FileError
from afresh.data.refusals import refusal_lines
from afresh.domains.field.fields import LARGEST, VALID, Fields, Values
from afresh.domains.field.reading.arranged import filled, join, selected, trimmed
from afresh.domains.field.reading.files import OPEN, field_files, open_contents
from afresh.domains.field.reading.grid import Boundary, guess_boundary
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.part import FilePart, read_part
from afresh.domains.field.reading.survey import Survey, check_holes, check_missing, check_sentinels, survey

STATES = 32  # that are looked at to see whether space is periodic
SAME = 1e-3  # share by which the spacing and the step of files may differ


@dataclass(frozen=True)
class Reading:
    """Fields, the choices made in reading them in words, and the files that were not used."""

    fields: Fields
    decisions: tuple[str, ...]
    refused: tuple[Refused, ...] = ()


def read_fields(path: Path, options: ReadingOptions | None = None) -> Reading:
    """Read a file of arrays, or a folder with one file for each trajectory or each part of the trajectories.

    Values stay in the files. Raises UserError for data that cannot be used, or for which something must be set.
    """
    options = options or ReadingOptions()
    files, refused = field_files(path)
    parts: list[FilePart] = []
    for file in files:  # the axes of the first are those of all
        try:
            parts.append(read_part(file.name, open_contents(file), options, parts[0] if parts else None))
        except FileError as error:
            refused.append(Refused(file.name, str(error), damaged=True))
    try:
        return _joined(path, parts, options, refused)
    except FileError:  # in values, which are first read now: each file alone shows whose they are
        parts, unreadable = _readable(parts)
    try:
        return _joined(path, parts, options, [*refused, *unreadable])
    except FileError as error:
        raise UserError(f"{path} cannot be read: {error}.", "no_fields") from None


def _joined(path: Path, parts: Sequence[FilePart], options: ReadingOptions, refused: Sequence[Refused]) -> Reading:
    """The fields of all files as one. Raises FileError for values that cannot be read, and UserError."""
    if not parts:
        raise UserError(
            f"No field that can be read in {path}. Accepted: {', '.join(OPEN)}, alone or in a folder.",
            "no_fields",
            lines=refusal_lines(refused),
        )
    for part in parts[1:]:
        _check_same(parts[0], part)
    decisions = list(parts[0].decisions)
    if len(parts) > 1:
        decisions.append(f"{len(parts):,} files are read as {parts[0].name}")
    fields = replace(
        parts[0].fields,
        values=join([part.fields.values for part in parts]),
        static=_static(parts),
        parameters=_parameters(parts, options, decisions),
        sources=tuple(source for part in parts for source in part.fields.sources),
    )
    fields = _with_boundaries(fields, parts[0].periodic, options, decisions)
    fields = _checked(fields, options, decisions)
    decisions.append(_shape(fields))
    if fields.trajectories == 1:
        decisions.append(
            "there is one trajectory: its end is held out, and a twentieth of its states before that is not used, "
            "since states next to each other are nearly the same"
            if fields.steps > 1
            else "there is only one state, so nothing can be held out"
        )
    return Reading(fields, tuple(decisions), tuple(refused))


def _readable(parts: Sequence[FilePart]) -> tuple[list[FilePart], list[Refused]]:
    """The parts whose values can be read, and why the others cannot."""
    readable: list[FilePart] = []
    damaged: list[Refused] = []
    for part in parts:
        try:
            survey(part.fields.values)
            readable.append(part)
        except FileError as error:
            damaged.append(Refused(part.name, str(error), damaged=True))
    return readable, damaged


def _check_same(first: FilePart, other: FilePart) -> None:
    """Raises UserError if a file does not agree with the first one, with both values."""
    grids = [" x ".join(f"{n:,}" for n in part.fields.values.shape[3:]) for part in (first, other)]
    differences = (
        ("the channels", ", ".join(first.fields.channels), ", ".join(other.fields.channels)),
        ("the axes of space", ", ".join(first.fields.axes), ", ".join(other.fields.axes)),
        ("the grid", *grids),
        ("this number of states", f"{first.fields.values.shape[1]:,}", f"{other.fields.values.shape[1]:,}"),
    )
    for what, one, two in differences:
        if one != two:
            raise _mixed(other.name, what, two, first.name, one)
    both = (first.fields, other.fields)
    distances = [dict(zip((*f.axes, "time"), (*f.spacing, f.step), strict=True)) for f in both]
    for axis, distance in distances[0].items():
        if abs(distance - distances[1][axis]) > SAME * distance:
            what = f"the distance along {axis}"
            raise _mixed(other.name, what, f"{distances[1][axis]:g}", first.name, f"{distance:g}")


def _mixed(name: str, what: str, has: str, first: str, one: str) -> UserError:
    return UserError(
        f"{name} has {what} {has}, and {first} {one}. All files of a folder must agree: put those of one kind into a "
        "folder of their own, or interpolate them to one grid and one time step (xarray has `interp`).",
        "grids_mixed",
    )


def _static(parts: Sequence[FilePart]) -> dict[str, NDArray[np.float32]]:
    """The inputs of all files: one for all trajectories if it is the same everywhere."""
    out: dict[str, NDArray[np.float32]] = {}
    for name in parts[0].fields.static:
        missing = [part.name for part in parts if name not in part.fields.static]
        if missing:
            raise UserError(
                f"{missing[0]} has no {name}, which is an input in {parts[0].name}. Complete it, or choose the inputs "
                "that all files have: `data.static`.",
                "grids_mixed",
            )
        arrays = [part.fields.static[name] for part in parts]
        if all(len(a) == 1 for a in arrays) and all(np.array_equal(a, arrays[0]) for a in arrays):
            out[name] = arrays[0]
        else:
            out[name] = np.concatenate(
                [np.repeat(a, p.fields.trajectories // len(a), 0) for a, p in zip(arrays, parts, strict=True)]
            )
    return out


def _parameters(
    parts: Sequence[FilePart], options: ReadingOptions, decisions: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Numbers of each trajectory. Attributes of a file count where files differ in them, or where they were named."""
    out: dict[str, NDArray[np.float64]] = {}
    for name in dict.fromkeys(name for part in parts for name in part.fields.parameters):
        lacking = [part.name for part in parts if name not in part.fields.parameters]
        if lacking:
            decisions.append(Omission(f"parameter {name} is not used: {lacking[0]} has none"))
            continue
        out[name] = np.concatenate([part.fields.parameters[name] for part in parts])
    for name in parts[0].attributes:
        numbers = [part.attributes.get(name) for part in parts]
        asked = options.parameters is not None and name in options.parameters
        if name in out or None in numbers or (options.parameters is not None and not asked):
            continue
        if asked or len(set(numbers)) > 1:
            every = [[float(n or 0)] * part.fields.trajectories for n, part in zip(numbers, parts, strict=True)]
            out[name] = np.concatenate([np.asarray(e, np.float64) for e in every])
        else:
            decisions.append(f"{name} is {numbers[0]:g} throughout, and therefore no condition")
    for name, array in out.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"Parameter {name} is missing for {int((~np.isfinite(array)).sum()):,} of {len(array):,} trajectories. "
                "Complete it, or choose others: `data.parameters`.",
                "values_missing",
            )
        decisions.append(f"parameter {name}: {array.min():g} to {array.max():g}")
    return out


def _with_boundaries(
    fields: Fields, known: Mapping[str, Boundary], options: ReadingOptions, decisions: list[str]
) -> Fields:
    """Whether each axis is periodic: as set, as the file says, or as the values look. A point of a periodic axis that
    repeats the first one is left out."""
    count = len(fields.axes)
    asked = options.periodic
    if asked is not None and len(asked) not in (1, count):
        raise UserError(
            f"`data.periodic={','.join(asked)}` has {len(asked)} answers, and space has "
            f"{counted(count, 'axis', 'axes')}: {', '.join(fields.axes)}. Give yes or no once, or for each of them.",
            "periodic_wrong",
        )
    states = _some_states(fields.values)
    periodic: list[bool] = []
    points = list(fields.space)
    for i, axis in enumerate(fields.axes):
        guess = guess_boundary(np.moveaxis(states, 2 + i, -1))
        is_periodic, reason = guess.periodic, guess.reason
        if asked is not None:
            is_periodic = asked[i % len(asked)] == "yes"
            reason = f"{'periodic' if is_periodic else 'not periodic'}: as set"
        elif axis in known:
            is_periodic = known[axis].periodic
            reason = f"{known[axis].reason} (`data.periodic` sets it)"
        else:
            reason += " (`data.periodic` sets it)"
        decisions.append(f"{axis}: {reason}")
        periodic.append(is_periodic)
        if is_periodic and guess.repeated and states.shape[2 + i] > 2:
            points[i] -= 1
            decisions.append(f"{axis}: the last of {points[i] + 1:,} points repeats the first one and is left out")
    if tuple(points) != fields.space:
        key = (slice(None), *(slice(0, n) for n in points))
        static = {name: array[key] for name, array in fields.static.items()}
        fields = replace(fields, values=trimmed(fields.values, tuple(points)), static=static)
    return replace(fields, periodic=tuple(periodic))


def _some_states(values: Values) -> NDArray[np.float64]:
    """A few states at even distances (states, channels, *space), with each channel over its own scale."""
    trajectories, steps = values.shape[:2]
    numbers = np.unique(np.linspace(0, trajectories * steps - 1, STATES).astype(int))
    read = [np.asarray(values[int(n) // steps, int(n) % steps : int(n) % steps + 1], np.float64) for n in numbers]
    states = np.concatenate(read)
    states = np.where(np.isfinite(states), states, np.nan)
    scale = np.abs(np.nan_to_num(states)).max((0, *range(2, states.ndim)), keepdims=True)
    return np.asarray(states / np.where(scale > 0, scale, 1))


def _checked(fields: Fields, options: ReadingOptions, decisions: list[str]) -> Fields:
    """The fields after a look at all values: missing ones are refused or masked, and constant channels left out.

    Raises UserError for what is missing, for numbers that look like missing ones, and for those beyond 32 bits.
    """
    seen = survey(fields.values)
    if not seen.complete:
        decisions.append(
            f"{seen.looked:,} of {seen.states:,} states were looked at for missing values; the others are "
            "when they are read"
        )
    if options.fill is None:
        check_sentinels(fields.values, seen, fields.channels)
    if options.missing == "refuse":
        check_missing(seen, fields.channels, fields.sources, fields.axes)
    else:
        check_holes(seen, fields.sources)
        fields = _masked(fields, seen, decisions)
    greatest = np.maximum(np.abs(seen.least), np.abs(seen.most))
    if (greatest > LARGEST).any():
        name = fields.channels[int(greatest.argmax())]
        raise UserError(
            f"{name} reaches {greatest.max():g}, beyond the numbers of 32 bits that a model computes with. Rescale it, "
            "or choose other channels: `data.channels`.",
            "values_too_large",
        )
    constant = [i for i, (low, high) in enumerate(zip(seen.least, seen.most, strict=True)) if low == high]
    if len(constant) == len(fields.channels):
        raise UserError(
            f"Nothing changes: {', '.join(fields.channels)} {'has' if len(constant) == 1 else 'have'} one value "
            f"everywhere ({seen.least[0]:g}). Choose other arrays: `data.channels`.",
            "channels_constant",
        )
    if constant and seen.complete:
        for i in constant:
            decisions.append(Omission(f"{fields.channels[i]} is not learnt: it is {seen.least[i]:g} everywhere"))
        kept = tuple(i for i in range(len(fields.channels)) if i not in constant)
        fields = replace(
            fields,
            values=selected(fields.values, kept),
            channels=tuple(fields.channels[i] for i in kept),
            units=tuple(fields.units[i] for i in kept),
        )
    return fields


def _masked(fields: Fields, seen: Survey, decisions: list[str]) -> Fields:
    if seen.absent is None:
        return fields
    absent = seen.absent
    if absent.all():
        raise UserError("Every value is missing: there is nothing to learn. Choose other channels.", "values_missing")
    absent = absent[:1] if (absent == absent[:1]).all() else absent
    decisions.append(
        f"{absent.mean():.2%} of the points are missing in every state: they are masked by the input {VALID}, and hold "
        "the mean of their channel"
    )
    static = {**fields.static, VALID: (~absent).astype(np.float32)}
    return replace(fields, values=filled(fields.values, seen.mean), static=static)


def _shape(fields: Fields) -> str:
    grid = " x ".join(f"{n:,}" for n in fields.space)
    units = [f"{c} ({u})" if u else c for c, u in zip(fields.channels, fields.units, strict=True)]
    spacing = ", ".join(f"{a} {s:g}" for a, s in zip(fields.axes, fields.spacing, strict=True))
    inputs = f", inputs {', '.join(fields.static)}" if fields.static else ""
    return (
        f"{counted(fields.trajectories, 'trajectory', 'trajectories')} of {counted(fields.steps, 'state')} on {grid} "
        f"points: channels {', '.join(units)}{inputs}; step {fields.step:g}, spacing {spacing}"
    )
