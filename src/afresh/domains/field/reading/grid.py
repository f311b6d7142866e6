"""Distances of points and of states, from their coordinates and from the values themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.core.plural import counted

EVEN = 1e-3  # of the mean distance, by which distances may differ
FEW = 8  # points of an axis, from which on its ends are looked at
FITS = 4.0  # of `seam_ratio`, up to which an axis counts as periodic


def time_step(name: str, times: NDArray[Any]) -> float:
    """The distance of times (time,). Raises UserError for times that are unsorted, doubled, missing or uneven."""
    advice = "or set `data.step` to the time between states, which are then taken in their order"
    times = _numbers(name, times, "data.step")
    steps = np.diff(times)
    if not len(steps):
        return 1.0
    if (steps == 0).any():
        at = int(np.flatnonzero(steps == 0)[0])
        doubled = counted(int((steps == 0).sum()), "time")
        raise UserError(
            f"{name}: {doubled} occurs twice in a row, first {times[at]:g} in states {at} and {at + 1}. Leave one of "
            f"each out, {advice}.",
            "times_doubled",
        )
    if (steps > 0).any() and (steps < 0).any():
        at = int(np.flatnonzero(np.sign(steps) != np.sign(np.median(steps)))[0])
        raise UserError(
            f"{name}: times are not sorted: {times[at]:g} in state {at} is followed by {times[at + 1]:g}. Sort the "
            f"states by their times, {advice}.",
            "times_unsorted",
        )
    if (steps < 0).all():
        raise UserError(
            f"{name}: times go backwards, from {times[0]:g} to {times[-1]:g}. Turn the states round, {advice}.",
            "times_unsorted",
        )
    if not _even(times):
        at = int(np.abs(steps - np.median(steps)).argmax())
        raise UserError(
            f"{name}: time steps are uneven, from {steps.min():g} to {steps.max():g}; the most unusual one is "
            f"{steps[at]:g}, after state {at}. Interpolate the states to even times (xarray has `interp`), {advice}.",
            "times_uneven",
        )
    return float((times[-1] - times[0]) / len(steps))


def spacing_of(name: str, points: NDArray[Any]) -> tuple[float, bool]:
    """The mean distance of points (points,), and whether all have it. Raises UserError for points that are unsorted or
    doubled."""
    points = _numbers(name, points, "data.spacing")
    steps = np.diff(points)
    if not len(steps):
        return 1.0, True
    if not ((steps > 0).all() or (steps < 0).all()):
        at = int(np.flatnonzero(np.sign(steps) != np.sign(steps[0] or 1))[0])
        raise UserError(
            f"{name}: coordinates neither rise nor fall throughout: {points[at]:g} at point {at} is followed by "
            f"{points[at + 1]:g}. Sort the points, or set `data.spacing` to the distance between them.",
            "coordinates_unsorted",
        )
    return float(abs(points[-1] - points[0]) / len(steps)), _even(points)


def _numbers(name: str, values: NDArray[Any], option: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, np.float64).ravel()
    if not np.isfinite(numbers).all():
        wrong = int((~np.isfinite(numbers)).sum())
        raise UserError(
            f"{name}: {wrong:,} of {len(numbers):,} coordinates are missing. Complete them, or set `{option}` to the "
            "distance between them.",
            "coordinates_missing",
        )
    return numbers


def _even(points: NDArray[np.float64]) -> bool:
    """Whether distances are equal, up to what numbers of 32 bits lose."""
    steps = np.diff(points)
    lost = 4 * float(np.finfo(np.float32).eps) * float(np.abs(points).max())
    return bool(np.abs(steps - steps.mean()).max() <= max(EVEN * abs(steps.mean()), min(lost, abs(steps.mean()) / 4)))


@dataclass(frozen=True)
class Boundary:
    """Whether an axis of space is periodic, why, and whether its last point repeats its first one."""

    periodic: bool
    reason: str
    repeated: bool = False


CIRCLE = 360.0  # degrees
LONGITUDES = frozenset({"lon", "long", "longitude", "rlon"})
BOUNDED = frozenset({"lat", "latitude", "rlat", "lev", "level", "levels", "depth", "height", "altitude", "plev"})


def named_boundary(axis: str, points: int, spacing: float, unit: str) -> Boundary | None:
    """What the name of an axis of the Earth says: longitudes that go all around are periodic, latitudes and heights are
    not. None for other axes."""
    if axis in LONGITUDES and ("degree" in unit or not unit):
        around = abs(points * spacing - CIRCLE) < spacing / 2
        return Boundary(
            around, f"{'periodic' if around else 'not periodic'}: {points:,} points {spacing:g} degrees apart"
        )
    return Boundary(False, "not periodic by its name") if axis in BOUNDED else None


def guess_boundary(states: NDArray[np.float64]) -> Boundary:
    """Whether the last axis of states (..., points) is periodic, by how its ends fit together."""
    if states.shape[-1] < FEW:
        return Boundary(False, f"{states.shape[-1]} points are too few to see whether it is periodic")
    # Whether the last point has the values of the first, and not because the surroundings are flat.
    scale = _mean(np.diff(states, axis=-1) ** 2)
    ends = _mean((states[..., 0] - states[..., -1]) ** 2)
    beside = _mean((states[..., 0] - states[..., 1]) ** 2)
    repeated = ends <= 1e-8 * min(beside, scale) and beside > 1e-6 * scale
    ratio = seam_ratio(states[..., :-1] if repeated else states)
    if not np.isfinite(ratio):
        return Boundary(False, "not periodic: nothing can be seen at its ends")
    bend = f"the bend across its ends is {ratio:.2g} times that within"
    if ratio >= FITS:
        return Boundary(False, f"not periodic: {bend}")
    return Boundary(True, f"periodic: {bend}", repeated)


def seam_ratio(states: NDArray[np.float64]) -> float:
    """Mean square of the second differences of (..., points) that reach over the ends, over that of those within.

    It is about 1 if the last point is a neighbour of the first, and large if values or slopes jump there. Points
    without a value do not count. Not a number if there is no bend within.
    """
    inner = _mean(np.diff(states, 2, axis=-1) ** 2)
    scale = _mean(states**2)
    if inner <= 1e-24 * scale or inner == 0:
        return float("nan")
    over = np.stack([states[..., -2:], states[..., :2]], -2).reshape(*states.shape[:-1], 4)
    return _mean(np.diff(over, 2, axis=-1) ** 2) / inner


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is a number; not a number if nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
