"""Which arrays of a file are the fields, their coordinates, inputs that do not change in time, and parameters."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from afresh.core import UserError
from afresh.data.files import FileError
from afresh.domains.field.reading.contents import Contents, Variable
from afresh.domains.field.reading.names import PAIRS, SAMPLE, axis_of
from afresh.domains.field.reading.options import ReadingOptions

FIRST = 12  # names of arrays in a message


@dataclass(frozen=True)
class Parts:
    """The arrays of a file by what they are. pair: the input of an operator whose output the field is, or "".

    coordinates: by the axis that they are of. rest: arrays whose shapes decide whether they are used.
    """

    fields: Mapping[str, Variable]
    coordinates: Mapping[str, Variable]
    rest: Mapping[str, Variable]
    pair: str
    reason: str


def divide(name: str, contents: Contents, options: ReadingOptions) -> Parts:
    """The parts of the file `name`. Raises FileError if it has no field, and UserError for names that do not exist."""
    variables = dict(contents.variables)
    for option, names in (("static", options.static), ("parameters", options.parameters)):
        for wanted in names or ():
            if wanted not in variables and wanted not in contents.parameters:
                raise missing_name(name, option, wanted, [*variables, *contents.parameters])
    reserved = {*(options.static or ()), *(options.parameters or ()), *(options.channels or ())}
    coordinates = _coordinates(name, {k: v for k, v in variables.items() if k not in reserved})
    taken = {key for key, _ in coordinates.values()}
    others = {k: v for k, v in variables.items() if k not in taken}
    chosen = [c for c in options.channels or () if c in others]
    excluded = {*(options.static or ()), *(options.parameters or ())} - set(chosen)
    if chosen and len(chosen) == len(options.channels or ()):
        fields, reason = chosen, "as set"
        pair = next((a for a, b in PAIRS if b == chosen[0] and a in others), "")
    else:  # names of channels within arrays, which are chosen later
        fields, pair, reason = _fields({k: v for k, v in others.items() if k not in excluded})
        fields = list(dict.fromkeys([*fields, *chosen]))
    if not fields:
        listed = ", ".join(f"{k} {v.shape}" for k, v in list(variables.items())[:FIRST]) or "none"
        raise FileError(
            f"no array has an axis of space and one of time or of samples. Arrays: {listed}. A series of numbers is no "
            "field"
        )
    return Parts(
        {k: others.pop(k) for k in fields}, {role: v for role, (_, v) in coordinates.items()}, others, pair, reason
    )


def _coordinates(name: str, variables: Mapping[str, Variable]) -> dict[str, tuple[str, Variable]]:
    out: dict[str, tuple[str, Variable]] = {}
    for key, variable in variables.items():
        role = axis_of(key) or (key if variable.role == "coordinate" else "")
        if role and len(variable.shape) == 2 and variable.dims[:1] == (SAMPLE,):
            variable = _shared(name, key, variable)
        if role and len(variable.shape) == 1 and variable.shape[0] > 1 and variable.role in ("", "coordinate"):
            out.setdefault(role, (key, variable))
    return out


def _shared(name: str, key: str, variable: Variable) -> Variable:
    """The common coordinate of all trajectories. Raises FileError if they differ."""
    values = variable.read()
    steps = np.diff(values, axis=-1)
    differs = ~np.isclose(steps, steps[:1], rtol=1e-3).all(-1)
    if differs.any():
        raise FileError(
            f"{key} of trajectory {int(differs.argmax())} has other distances than that of trajectory 0. Interpolate "
            "all trajectories to one grid and one time step, or give them in folders of their own"
        )
    return Variable(values[0], variable.dims[1:], variable.unit, role=variable.role)


def _fields(others: Mapping[str, Variable]) -> tuple[list[str], str, str]:
    """The names of the fields, the input that they are the output of, and why."""
    declared = [k for k, v in others.items() if v.role == "field"]
    if declared:
        return declared, "", "the layout says so"
    arrays = {k: v for k, v in others.items() if len(v.shape) > 1 and v.role == ""}
    if not arrays:
        return [], "", ""
    size = {k: float(np.prod(v.shape)) for k, v in arrays.items()}
    largest = max(size.values())
    for given, sought in PAIRS:
        if given in arrays and sought in arrays and size[sought] >= max(size[given], largest):
            return [sought], given, f"{given} and {sought} are the input and the output of an operator"
    first = next(k for k in arrays if size[k] == largest)
    alike = [k for k, v in arrays.items() if v.shape == arrays[first].shape and v.dims == arrays[first].dims]
    return alike, "", "the largest" if len(arrays) > 1 else "the only one"


def missing_name(file: str, option: str, wanted: str, known: Collection[str]) -> UserError:
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    listed = ", ".join(list(known)[:FIRST]) + (", ..." if len(known) > FIRST else "")
    return UserError(
        f"`data.{option}` names {wanted}, and {file} has no such array or channel.{hint} It has {listed or 'none'}.",
        "name_unknown",
    )
