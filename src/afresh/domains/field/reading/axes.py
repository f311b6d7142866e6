"""What each axis of an array is: sample, time, channel or one of space.

What a person or the file says goes first, then coordinates that have the length of one axis. Only then are the numbers
looked at: along samples neighbours have nothing in common, along time and space they are alike, and the ends of a
periodic axis of space fit together. What remains open is an error and never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.field.reading.contents import Variable
from afresh.domains.field.reading.grid import seam_ratio
from afresh.domains.field.reading.names import CHANNEL, ROLES, SAMPLE, SPACE, TIME, axis_of

FEW = 8  # channels of an array in which nothing is named; a longer axis is none of channels
SMOOTH, ROUGH = 0.3, 0.6  # of `roughness`: 1 for neighbours that are independent
FITS, JUMPS = 4.0, 100.0  # of `seam_ratio`: 1 if the ends of an axis are neighbours
BLOCK = 1 << 20  # numbers that are looked at for each axis
WORDS = {SAMPLE: "the trajectory", TIME: "time", CHANNEL: "the channel"}
EXAMPLES = {1: "x", 2: "time,x", 3: "sample,time,x", 4: "sample,time,x,y", 5: "sample,time,channel,x,y"}
EXAMPLES[6] = "sample,time,channel,x,y,z"


@dataclass(frozen=True)
class Axes:
    """The role of each axis of an array, sample, time, channel or a name of space, and why."""

    roles: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def space(self) -> tuple[str, ...]:
        return tuple(role for role in self.roles if role not in ROLES)

    def describe(self, name: str, shape: Sequence[int]) -> str:
        """ "u: axis 0 (50) is the trajectory (...), axis 1 (51) is time (...)"."""
        rows = zip(shape, self.roles, self.reasons, strict=True)
        parts = (f"axis {i} ({n:,}) is {WORDS.get(role, role)} ({why})" for i, (n, role, why) in enumerate(rows))
        return f"{name}: {', '.join(parts)}"


def given_axes(name: str, shape: Sequence[int], given: Sequence[str]) -> Axes:
    """The axes as a person set them. Raises UserError if they do not fit the array."""
    example = "accepted are sample, time, channel and names of space, as `data.axes=sample,time,channel,x,y`"
    roles = tuple(word.strip().lower() for word in given)
    if len(roles) != len(shape):
        raise UserError(
            f"`data.axes={','.join(given)}` names {len(roles)} axes, and {name} has {len(shape)}: its shape is "
            f"{tuple(shape)}. Name each in its order; {example}.",
            "axes_wrong",
        )
    if twice := sorted({role for role in roles if roles.count(role) > 1}):
        raise UserError(
            f"`data.axes={','.join(given)}` names {', '.join(twice)} more than once; {example}.", "axes_wrong"
        )
    if not set(roles) - set(ROLES):
        raise UserError(f"`data.axes={','.join(given)}` names no axis of space; {example}.", "axes_wrong")
    return Axes(roles, ("as set",) * len(roles))


def tell_axes(
    name: str, variable: Variable, coordinates: Mapping[str, Variable], given_with: tuple[int, ...] | None = None
) -> Axes:
    """The axes of an array. `coordinates`: one by its role. `given_with`: the shape of the input of an operator whose
    output the array is. Raises UserError for axes that cannot be told apart."""
    telling = _Telling(name, variable)
    telling.by_names()
    telling.by_coordinates(coordinates)
    telling.by_input(given_with)
    telling.by_numbers()
    return telling.result()


def matching_axes(variable: Variable, field: Axes, sizes: Mapping[str, int]) -> tuple[str, ...] | None:
    """The axes of an array that does not change in time, on the grid of a field: None if it does not fit."""
    shape = variable.shape
    sizes = {SAMPLE: 1, **sizes}
    if shape and variable.named:
        roles = tuple(axis_of(d) or d for d in variable.dims)
        fits = all(sizes.get(role, n) == n for role, n in zip(roles, shape, strict=True))
        return roles if fits and {SAMPLE} < {*roles, SAMPLE} <= {*field.space, SAMPLE, CHANNEL} else None
    space = tuple(role for role in field.roles if role not in ROLES)
    for roles in (space, tuple(r for r in field.roles if r not in (TIME, CHANNEL)), (SAMPLE, *space)):
        for all_roles in (roles, (*roles, CHANNEL)):
            pairs = [(role, n, sizes.get(role, FEW)) for role, n in zip(all_roles, shape, strict=False)]
            fits = all(n <= k if r == CHANNEL else n == k or (r == SAMPLE and n == 1) for r, n, k in pairs)
            if len(all_roles) == len(shape) and fits:
                return all_roles
    return None


class _Telling:
    """What is known so far of the axes of one array."""

    def __init__(self, name: str, variable: Variable) -> None:
        self.name, self.variable, self.shape = name, variable, variable.shape
        self.roles, self.reasons = [""] * len(self.shape), [""] * len(self.shape)

    def set(self, axis: int, role: str, reason: str) -> None:
        self.roles[axis], self.reasons[axis] = role, reason

    @property
    def open(self) -> list[int]:
        return [i for i, role in enumerate(self.roles) if not role]

    @property
    def has_space(self) -> bool:
        return any(role and role not in ROLES for role in self.roles)

    def by_names(self) -> None:
        for axis, name in enumerate(self.variable.dims):
            if name:
                known = axis_of(name)
                self.set(axis, known or name, f"named {name}" if known else f"named {name}, which counts as space")

    def by_coordinates(self, coordinates: Mapping[str, Variable]) -> None:
        """An axis that alone has the length of a coordinate, or several of space that are alike on an even grid."""
        free = {role: v.shape[-1] for role, v in coordinates.items() if role not in self.roles}
        for length in dict.fromkeys(free.values()):
            axes = [i for i in self.open if self.shape[i] == length]
            roles = sorted((r for r, n in free.items() if n == length), key=_order)
            alike = TIME not in roles and SAMPLE not in roles and _alike([coordinates[r].read() for r in roles])
            if len(axes) == len(roles) and (len(roles) == 1 or alike):
                for axis, role in zip(axes, roles, strict=True):
                    self.set(axis, role, f"as long as the coordinate {role}")

    def by_input(self, given_with: tuple[int, ...] | None) -> None:
        """An operator learns pairs: the input has the samples and the space of the output, and not its times."""
        if given_with is None or not self.open:
            return
        extra = [i for i in self.open if self.shape[:i] + self.shape[i + 1 :] == given_with]
        if len(extra) == 1 and TIME not in self.roles:
            self.set(extra[0], TIME, "the axis that the input lacks")
        elif given_with != self.shape:
            return
        rest = [i for i in self.open if self.shape[i] > 1]
        if rest and SAMPLE not in self.roles:
            self.set(rest.pop(0), SAMPLE, "the first axis of pairs of input and output")
        for axis, role in zip(rest, (n for n in "xyz" if n not in self.roles), strict=False):
            self.set(axis, role, "another axis of both the input and the output")

    def by_numbers(self) -> None:
        for axis in [i for i in self.open if self.shape[i] == 1]:
            role = next((r for r in ((SAMPLE,) if axis == 0 else ()) + (CHANNEL, TIME) if r not in self.roles), "")
            self.set(axis, role, "it has one entry")
        if not self.open:
            return
        rough = {i: roughness(self.block(i), i) for i in self.open}
        self._square(rough)
        self._rough(rough)
        self._seams(rough)
        self._last(rough)

    def _square(self, rough: Mapping[int, float]) -> None:
        """Two or three smooth axes of one length beside each other are space, if another axis can be time."""
        if self.has_space:
            return
        smooth = [i for i in self.open if rough[i] < SMOOTH and self.shape[i] > FEW]
        for run in _runs(smooth):
            timed = TIME in self.roles or len(smooth) > len(run)
            if timed and len(run) in (2, 3) and len({self.shape[i] for i in run}) == 1:
                for axis, role in zip(run, "xyz", strict=False):
                    self.set(axis, role, f"one of {len(run)} smooth axes of the same length")
                return

    def _rough(self, rough: Mapping[int, float]) -> None:
        """A long axis along which neighbours have nothing in common holds samples, a short one channels."""
        long = [i for i in self.open if rough[i] > ROUGH and self.shape[i] > FEW]
        if len(long) == 1 and SAMPLE not in self.roles:
            self.set(long[0], SAMPLE, "neighbours have nothing in common")
        taken = CHANNEL in self.roles
        short = [i for i in self.open if rough[i] > ROUGH and self.shape[i] <= FEW and i > 0]
        if len(short) == 1 and CHANNEL not in self.roles and len(self.open) < len(self.shape):
            self.set(short[0], CHANNEL, "it is short, and neighbours have nothing in common")
            taken = True
        if taken and 0 in self.open and rough[0] > ROUGH and SAMPLE not in self.roles:
            self.set(0, SAMPLE, "neighbours have nothing in common, and channels are along another axis")

    def _seams(self, rough: Mapping[int, float]) -> None:
        """Smooth axes whose ends fit together are space, if there is another smooth axis whose ends do not."""
        smooth = [i for i in self.open if rough[i] < SMOOTH and self.shape[i] > FEW]
        if self.has_space or len(smooth) < 2:
            return
        ratios = {i: seam_ratio(np.moveaxis(self.block(i), i, -1)) for i in smooth}
        fits = [i for i, ratio in ratios.items() if ratio < FITS]
        jumps = [i for i, ratio in ratios.items() if ratio > JUMPS]
        if len(jumps) == 1 and len(fits) == len(smooth) - 1 and len(fits) <= 3:
            for axis, role in zip(fits, "xyz", strict=False):
                self.set(axis, role, "smooth, and its ends fit together")

    def _last(self, rough: Mapping[int, float]) -> None:
        """The only axis that is left, if what is missing is clear."""
        if len(self.open) != 1:
            return
        axis = self.open[0]
        if self.has_space and TIME not in self.roles and rough[axis] < SMOOTH and self.shape[axis] > 2:
            self.set(axis, TIME, "smooth, and not space")
        elif self.has_space and TIME in self.roles and SAMPLE not in self.roles and axis == 0:
            self.set(axis, SAMPLE, "the only axis that is left, and the first")
        elif self.has_space and CHANNEL not in self.roles and self.shape[axis] <= FEW and axis > 0:
            self.set(axis, CHANNEL, "the only axis that is left, and short")
        elif not self.has_space and TIME in self.roles and rough[axis] < SMOOTH:
            self.set(axis, "x", "smooth, and not time")

    def block(self, axis: int) -> NDArray[np.float64]:
        """Numbers from the middle of the array, with the whole of one axis."""
        others = max(1, len(self.shape) - 1)
        most = max(2, int((BLOCK / max(1, self.shape[axis])) ** (1 / others)))
        key = tuple(
            slice(None) if i == axis else slice(start := max(0, (n - most) // 2), min(n, start + most))
            for i, n in enumerate(self.shape)
        )
        numbers = self.variable.read(key)
        return np.nan_to_num(numbers.real if numbers.dtype.kind == "c" else numbers).astype(np.float64)

    def result(self) -> Axes:
        """Raises UserError if an axis is open, if a role is taken twice, or if none is of space."""
        twice = {role for role in self.roles if role and self.roles.count(role) > 1}
        if self.open or twice or not self.has_space:
            known = [
                f"axis {i} ({n:,}) {_state(r)}" for i, (n, r) in enumerate(zip(self.shape, self.roles, strict=True))
            ]
            example = EXAMPLES.get(len(self.shape), EXAMPLES[6])
            problem = "several axes would be " + " and ".join(sorted(twice)) if twice else "cannot be told apart"
            problem = problem if self.open or twice else "none of them is space"
            raise UserError(
                f"The axes of {self.name} {self.shape}: {problem}. Known: {', '.join(known)}. Say what they are, as "
                f"`data.axes={example}`: sample, time, channel, and any name for an axis of space.",
                "axes_unclear",
            )
        return Axes(tuple(self.roles), tuple(self.reasons))


def roughness(values: NDArray[np.float64], axis: int) -> float:
    """Mean squared difference of neighbours along an axis, over twice the variance: 1 if they are independent, and
    near 0 if they are alike. 0 where nothing changes."""
    if values.shape[axis] < 2:
        return 0.0
    variance = values.var(axis, ddof=1).mean()
    return float((np.diff(values, axis=axis) ** 2).mean() / (2 * variance)) if variance > 0 else 0.0


def _order(role: str) -> int:
    return list(SPACE).index(role) if role in SPACE else -1


def _alike(coordinates: Sequence[NDArray[np.float64]]) -> bool:
    return all(np.allclose(np.diff(c), np.diff(coordinates[0]), rtol=1e-3) for c in coordinates)


def _runs(axes: Sequence[int]) -> Iterator[list[int]]:
    """Stretches of consecutive numbers."""
    run: list[int] = []
    for axis in axes:
        if run and axis != run[-1] + 1:
            yield run
            run = []
        run.append(axis)
    yield run


def _state(role: str) -> str:
    return f"is {WORDS.get(role, role)}" if role else "is unknown"
