"""Physical fields in time: trajectories of states on a grid, read a part at a time, and what is known of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.data.files import FileError

LARGEST = float(np.finfo(np.float32).max)
CHUNK = 16 << 20  # bytes of values that are held at a time while all of them are gone through
VALID = "valid"  # the static input that is 1 where the values are known and 0 where they are missing throughout


class Values(Protocol):
    """An array (trajectories, time, channels, *space) that may lie in files.

    `values[trajectory, first:last]` reads the states (last - first, channels, *space).
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: tuple[int, slice], /) -> Any: ...


@dataclass(frozen=True)
class Fields:
    """Trajectories of one system on one grid.

    values: (trajectories, time, channels, *space), float32 or float64, possibly read from files when they are asked
    for. Pairs of an input and an output without time have one state, and the input is `static`.
    channels, units: a name and a unit ("" if unknown) for each channel. axes: a name for each axis of space.
    spacing: the distance of neighbouring points along each axis of space. step: the time between states.
    periodic: whether each axis of space is.
    static: inputs that do not change in time, each (trajectories or 1, *space). The one named `VALID` marks with 0 the
    points that have no value in any state; there the values are the mean of their channel.
    parameters: numbers of each trajectory, each (trajectories,).
    sources: where each trajectory was read from, for messages; empty if it was not read.
    """

    values: Values
    channels: tuple[str, ...]
    units: tuple[str, ...]
    spacing: tuple[float, ...]
    step: float
    periodic: tuple[bool, ...]
    static: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    parameters: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    axes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", ("x", "y", "z", "w")[: len(self.values.shape) - 3])

    @property
    def trajectories(self) -> int:
        return self.values.shape[0]

    @property
    def steps(self) -> int:
        """The number of states of a trajectory."""
        return self.values.shape[1]

    @property
    def space(self) -> tuple[int, ...]:
        """The number of points along each axis of space."""
        return tuple(self.values.shape[3:])


@dataclass(frozen=True)
class Span:
    """`length` consecutive states of a trajectory, beginning with number `first`."""

    trajectory: int
    first: int
    length: int


def whole(fields: Fields, trajectories: Sequence[int]) -> list[Span]:
    """All states of these trajectories."""
    return [Span(number, 0, fields.steps) for number in trajectories]


def read_states(fields: Fields, span: Span, infer: Sequence[str] = ()) -> NDArray[np.float32]:
    """The states of a span (length, channels, *space), after whose channels the numbers `infer` of the trajectory are
    channels that are constant in space.

    Raises UserError for values that are not finite in float32.
    """
    states = _read(fields, span).astype(np.float32)
    if not infer:
        return states
    numbers = np.array([fields.parameters[name][span.trajectory] for name in infer], np.float32)
    drawn = np.broadcast_to(numbers.reshape(1, -1, *[1] * len(fields.space)), (len(states), len(infer), *fields.space))
    return np.concatenate([states, drawn], 1)


def _read(fields: Fields, span: Span) -> NDArray[Any]:
    """The states of a span (length, channels, *space). Raises UserError if they cannot be read or are not finite."""
    last = span.first + span.length
    where = fields.sources[span.trajectory] if fields.sources else f"trajectory {span.trajectory}"
    try:
        states = np.asarray(fields.values[span.trajectory, span.first : last])
    except FileError as error:
        raise UserError(f"{where} cannot be read: {error}. Leave the file out.", "damaged_file") from None
    if not bool(np.isfinite(states).all()) or float(np.abs(states).max()) > LARGEST:
        wrong = ~np.isfinite(states) | (np.abs(states) > LARGEST)
        time, channel, *point = (int(i) for i in np.argwhere(wrong)[0])
        raise UserError(
            f"{where} has {int(wrong.sum()):,} values that are not finite numbers of 32 bits; the first is "
            f"{fields.channels[channel]} in state {span.first + time} at point {tuple(point)}. Correct them, leave the "
            "trajectory out, or set `data.missing=mask` if the same points are missing in every state.",
            "values_not_finite",
        )
    return states


def chunks(fields: Fields, spans: Sequence[Span]) -> Iterator[Span]:
    """The same states in the same order, in spans of at most `CHUNK` bytes (but at least one state)."""
    size = math.prod(fields.values.shape[2:]) * fields.values.dtype.itemsize
    most = max(1, CHUNK // max(1, size))
    for span in spans:
        for first in range(span.first, span.first + span.length, most):
            yield Span(span.trajectory, first, min(most, span.first + span.length - first))


GAP = 0.05  # of the states of the only trajectory, between what is learnt and what is held out


def split_by_time(fields: Fields, share: float) -> tuple[list[Span], list[Span]]:
    """What is learnt and what is held out of a single trajectory: its beginning and the `share` at its end.

    A twentieth of the states between them is in neither part, since the states next to each other are nearly the same.
    Raises UserError if there are too few states for that.
    """
    held, gap = math.ceil(share * fields.steps), math.ceil(GAP * fields.steps)
    if (learnt := fields.steps - held - gap) < 2 or held < 2:
        raise UserError(
            f"There is one trajectory, of {fields.steps} states, which are too few to hold {share:.0%} of them out "
            "with a gap before them. Give more trajectories, or more states of this one.",
            "too_few_states",
        )
    return [Span(0, 0, learnt)], [Span(0, learnt + gap, held)]
