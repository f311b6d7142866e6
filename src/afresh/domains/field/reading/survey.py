"""One look at all values: what is missing and where, what never changes, and numbers that look like missing values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.data.files import MB
from afresh.domains.field.fields import CHUNK, Values

MOST = 2048 * MB  # of values that are looked at; of more data, states at even distances
# Numbers that programs write for what is missing: the defaults of NetCDF, and those of many models.
SENTINELS = (
    -9999.0,
    -999.0,
    -99999.0,
    -32768.0,
    -32767.0,
    9999.0,
    99999.0,
    1e20,
    1e30,
    -1e30,
    1e35,
    1e36,
    9.969209968386869e36,
)
FAR = 10.0  # times the range of the other values, by which such a number lies outside


@dataclass(frozen=True)
class Survey:
    """What was seen of values: least, most, mean (channels,) and `missing` (channels,) among `count` values each.

    first: trajectory, state, channel and point of the first missing value. absent: points that are missing in every
    state, (trajectories, *space); None if some are missing in a part of the states. looked: the states that were looked
    at, of `states`.
    """

    least: NDArray[np.float64]
    most: NDArray[np.float64]
    mean: NDArray[np.float64]
    missing: NDArray[np.int64]
    count: int
    first: tuple[int, ...]
    absent: NDArray[np.bool_] | None
    looked: int
    states: int

    @property
    def complete(self) -> bool:
        return self.looked == self.states


def survey(values: Values) -> Survey:
    """Look at all values, or at states at even distances if there are more than `MOST` bytes."""
    trajectories, steps, channels, *space = values.shape
    size = math.prod(values.shape[2:]) * values.dtype.itemsize
    every = max(1, math.ceil(trajectories * steps * size / MOST))
    block = max(1, CHUNK // max(1, size)) if every == 1 else 1
    least, most = np.full(channels, np.inf), np.full(channels, -np.inf)
    total, missing = np.zeros(channels), np.zeros(channels, np.int64)
    first: tuple[int, ...] = ()
    looked = 0
    some: dict[int, NDArray[np.bool_]] = {}  # of trajectories with missing values: points that are missing at some time
    always: dict[int, NDArray[np.bool_]] = {}
    whole: set[int] = set()  # trajectories of which a state without missing values was seen
    for number in range(0, trajectories * steps, block * every):
        trajectory, at = divmod(number, steps)
        rest = min(block, trajectories * steps - number)
        while rest > 0:
            states = np.asarray(values[trajectory, at : min(steps, at + rest)], np.float64)
            gone = ~np.isfinite(states)
            flat = np.moveaxis(states, 1, 0).reshape(channels, -1)
            if gone.any():
                if not first:
                    first = (trajectory, *(int(i) for i in np.argwhere(gone)[0]))
                    first = (trajectory, first[1] + at, *first[2:])
                union, common = np.asarray(gone.any((0, 1))), np.asarray(gone.all((0, 1)))
                some[trajectory] = np.logical_or(some.get(trajectory, union), union)
                always[trajectory] = np.logical_and(always.get(trajectory, common), common)
                missing += gone.sum((0, *range(2, gone.ndim)))
                known = np.isfinite(flat)
                low, high = np.where(known, flat, np.inf).min(1), np.where(known, flat, -np.inf).max(1)
                total += np.where(known, flat, 0).sum(1)
            else:
                whole.add(trajectory)
                low, high = flat.min(1), flat.max(1)
                total += flat.sum(1)
            least, most = np.minimum(least, low), np.maximum(most, high)
            looked += len(states)
            rest -= len(states)
            trajectory, at = trajectory + 1, 0
    count = looked * math.prod(space)
    absent: NDArray[np.bool_] | None = None
    if first and not whole & set(some) and all((some[t] == always[t]).all() for t in some):
        nothing = np.zeros(tuple(space), bool)
        absent = np.stack([some.get(t, nothing) for t in range(trajectories)])
    mean = total / np.maximum(1, count - missing)
    return Survey(least, most, mean, missing, count, first, absent, looked, trajectories * steps)


def check_missing(seen: Survey, channels: Sequence[str], sources: Sequence[str], axes: Sequence[str]) -> None:
    """Raises UserError if values are missing, with how many and where."""
    if not seen.first:
        return
    trajectory, state, channel, *point = seen.first
    shares = ", ".join(
        f"{name} {n:,} of {seen.count:,} ({n / seen.count:.2%})"
        for name, n in zip(channels, seen.missing, strict=True)
        if n
    )
    place = ", ".join(f"{a} {i}" for a, i in zip(axes, point, strict=True))
    looked = "" if seen.complete else f" in the {seen.looked:,} of {seen.states:,} states that were looked at"
    raise UserError(
        f"Values are missing (NaN, infinite, or a fill value){looked}: {shares}. The first is {channels[channel]} of "
        f"{sources[trajectory]}, state {state}, {place}. Where the same points are missing in every state, as land in "
        "an ocean, set `data.missing=mask`; otherwise complete them first (xarray has `interpolate_na`), or leave out "
        "the channel with `data.channels`.",
        "values_missing",
    )


def check_holes(seen: Survey, sources: Sequence[str]) -> None:
    """Raises UserError if what is missing cannot be masked because it changes in time or between channels."""
    if seen.first and seen.absent is None:
        raise UserError(
            f"`data.missing=mask` needs points that are missing in every state and every channel of a trajectory. In "
            f"{sources[seen.first[0]]} some are missing only in a part of the states or channels. Complete them first "
            "(xarray has `interpolate_na`), or choose channels that are missing at the same points: `data.channels`.",
            "values_missing",
        )


def suspicious(least: float, most: float, second_least: float, second_most: float) -> float | None:
    """An extreme value that programs write for what is missing, and that lies far outside of all others."""
    spread = max(second_most - second_least, 1e-12)
    for value, far in ((least, second_least - least), (most, most - second_most)):
        if far > FAR * spread and any(math.isclose(value, s, rel_tol=1e-6) for s in SENTINELS):
            return value
    return None


def check_sentinels(values: Values, seen: Survey, channels: Sequence[str]) -> None:
    """Raises UserError if the least or the greatest value of a channel looks like one that stands for missing values.

    Only a channel whose extremes are such numbers is looked at again.
    """
    for number, name in enumerate(channels):
        ends = (float(seen.least[number]), float(seen.most[number]))
        listed = [v for v in ends if any(math.isclose(v, s, rel_tol=1e-6) for s in SENTINELS)]
        if not listed or ends[0] == ends[1]:
            continue
        low, high, count = _without(values, number, listed)
        value = suspicious(*ends, low, high)
        if value is not None:
            raise UserError(
                f"{counted(count, 'value')} of {name} {'is' if count == 1 else 'are'} {value:g}, and the others lie "
                f"between {low:g} and {high:g}. If that number stands for missing values, set `data.fill={value:g}`; "
                "if it is a true value, set `data.fill=nan`.",
                "values_suspicious",
            )


def _without(values: Values, channel: int, listed: Sequence[float]) -> tuple[float, float, int]:
    """The least and the greatest value of a channel without those listed, and how many are those."""
    low, high, count = math.inf, -math.inf, 0
    size = math.prod(values.shape[2:]) * values.dtype.itemsize
    block = max(1, CHUNK // max(1, size))
    budget = MOST
    for trajectory in range(values.shape[0]):
        for at in range(0, values.shape[1], block):
            states = np.asarray(values[trajectory, at : at + block], np.float64)[:, channel]
            hit = np.any([np.isclose(states, v, rtol=1e-6) for v in listed], 0) | ~np.isfinite(states)
            count += int((hit & np.isfinite(states)).sum())
            if not hit.all():
                low, high = min(low, float(states[~hit].min())), max(high, float(states[~hit].max()))
            budget -= size * len(states)
            if budget < 0:
                return low, high, count
    return low, high, count
