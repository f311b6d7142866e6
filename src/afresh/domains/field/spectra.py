"""Energy spectra of fields, and how far those of rollouts are from those of the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.field.scores import over_trajectories
from afresh.engine.evaluation.estimate import Array, Estimate

BANDS = ("low", "middle", "high")
FLOOR = float(np.finfo(np.float32).eps) ** 2  # of a state's energy: what is below is rounding errors of float32
STEPS = 64  # states that are transformed at a time


@dataclass(frozen=True)
class Spectrum:
    """Energy by wavenumber.

    wavenumbers: (K,), in radians per unit of length, the first of them 0. energy: (..., K), in squared units of the
    channel; over all K it sums to half the mean square of the field. resolved: the wavenumbers 1 to `resolved` are
    whole shells, below the Nyquist wavenumber of every axis; those after them are corners of the grid.
    """

    wavenumbers: Array
    energy: Array
    resolved: int


def energy_spectrum(states: NDArray[Any], periodic: tuple[bool, ...], spacing: tuple[float, ...]) -> Spectrum:
    """The isotropic energy spectrum of states (..., *space): the energy of all modes in each shell of wavenumbers.

    periodic and spacing: one for each axis of space. The shells are as wide as the smallest wavenumber of the longest
    axis, and a mode belongs to the nearest. Nothing is divided by the number of modes in a shell, so that Kolmogorov's
    law has the exponent -5/3. The sum over shells is half the mean square (Parseval). Along an axis that is not
    periodic the deviation from the mean of the state is multiplied by Hann's window, scaled to a mean square of 1,
    without which the jump at the edge would be a tail at all wavenumbers; the sum is then half the mean square of what
    is transformed. Raises UserError if the axes do not agree.
    """
    axes = len(periodic)
    if not axes or states.ndim < axes or len(spacing) != axes or min(spacing) <= 0:
        raise UserError(
            f"The states have the shape {states.shape}, and there are {axes} axes with a boundary and {len(spacing)} "
            "with a spacing. Give a boundary and a spacing above 0 for each axis of space, the last ones of the states."
        )
    space = tuple(range(-axes, 0))
    shape = states.shape[-axes:]
    values = np.asarray(states, np.float64)
    mean = values.mean(axis=space, keepdims=True)
    values = mean + (values - mean) * _window(shape, periodic)
    modes = np.abs(np.fft.fftn(values, axes=space)) ** 2 / (2 * np.prod(shape) ** 2)
    shells, width, resolved = _shells(shape, spacing)
    order = np.argsort(shells, kind="stable")
    present, starts = np.unique(shells[order], return_index=True)
    energy = np.zeros((*states.shape[:-axes], int(present[-1]) + 1))
    energy[..., present] = np.add.reduceat(modes.reshape(*states.shape[:-axes], -1)[..., order], starts, axis=-1)
    return Spectrum(width * np.arange(energy.shape[-1]), energy, resolved)


def mean_spectrum(states: NDArray[Any], periodic: tuple[bool, ...], spacing: tuple[float, ...]) -> Spectrum:
    """The spectrum of each trajectory and channel, averaged over time and, for an ensemble, over members.

    states: (trajectories, time, channels, *space) or (members, trajectories, ...). Energy: (trajectories, channels, K).
    Energies are averaged, never states: the mean of an ensemble is smoother than any member. Raises UserError for other
    shapes and where a value is not finite.
    """
    axes = len(periodic)
    if states.ndim not in (axes + 3, axes + 4) or 0 in states.shape:
        raise UserError(
            f"The states have the shape {states.shape} and {axes} axes of space. Give (trajectories, time, channels, "
            "*space), or an ensemble with its members before."
        )
    rollouts = [states] if states.ndim == axes + 3 else [states[m] for m in range(len(states))]
    sums: list[Array] = []
    for trajectory in range(len(rollouts[0])):
        total: Any = 0.0
        for rollout in rollouts:
            for start in range(0, rollout.shape[1], STEPS):
                spectrum = energy_spectrum(rollout[trajectory, start : start + STEPS], periodic, spacing)
                total = total + spectrum.energy.sum(0)
        if not np.isfinite(total).all():
            raise UserError(f"Trajectory {trajectory} holds values that are not finite. Give its states before them.")
        sums.append(total / (len(rollouts) * rollouts[0].shape[1]))
    return Spectrum(spectrum.wavenumbers, np.stack(sums), spectrum.resolved)


@dataclass(frozen=True)
class BandError:
    """The error of the spectrum within a band of wavenumbers, `first` to `last` (inclusive, in shells).

    error: the mean of |ln E - ln E_true|; 0.1 is about a tenth of the energy. bias: the mean without absolute values:
    below 0 the rollouts are too smooth, above 0 too rough.
    """

    first: int
    last: int
    error: Estimate
    bias: Estimate


def spectrum_errors(predicted: Spectrum, truth: Spectrum) -> dict[str, BandError]:
    """How far the logarithm of the energy is from the truth's, in the low, middle and high third of the resolved
    wavenumbers, from two of `mean_spectrum`.

    The difference is taken for each trajectory and channel, and averaged over the shells of the band, over channels and
    over trajectories. Energies below 1.4e-14 of the true total are taken to be so large: they are rounding errors of
    float32. Beside it stands the error of a second truth, which is not 0 either. Raises UserError if the two are not of
    the same trajectories, channels and grid, or if fewer than three wavenumbers are resolved.
    """
    if predicted.energy.shape != truth.energy.shape or not np.allclose(predicted.wavenumbers, truth.wavenumbers):
        raise UserError(
            f"The spectra have the shapes {predicted.energy.shape} and {truth.energy.shape}, or other wavenumbers. "
            "Give both of the same trajectories, channels, grid and spacing."
        )
    floor = np.maximum(FLOOR * truth.energy.sum(-1, keepdims=True), np.finfo(np.float64).tiny)
    difference = np.log(np.maximum(predicted.energy, floor)) - np.log(np.maximum(truth.energy, floor))
    return {
        name: BandError(
            shells[0],
            shells[-1],
            over_trajectories(np.abs(difference[..., shells]).mean((1, 2))),
            over_trajectories(difference[..., shells].mean((1, 2))),
        )
        for name, shells in _bands(truth.resolved)
    }


def _bands(resolved: int) -> Iterator[tuple[str, list[int]]]:
    if resolved < len(BANDS):
        raise UserError(
            f"The grid resolves {resolved} wavenumbers, which are too few for three bands. Give 6 points or more."
        )
    thirds = np.array_split(np.arange(1, resolved + 1), len(BANDS))
    return ((name, shells.tolist()) for name, shells in zip(BANDS, thirds, strict=True))


def _window(shape: tuple[int, ...], periodic: tuple[bool, ...]) -> Array:
    """The product over axes of 1 where periodic, elsewhere Hann's window with a mean square of 1: (*space)."""
    window = np.ones(shape)
    for axis, (points, closed) in enumerate(zip(shape, periodic, strict=True)):
        if not closed and points > 1:
            hann = np.sin(np.pi * (np.arange(points) + 0.5) / points) ** 2
            along = [1] * len(shape)
            along[axis] = points
            window = window * (hann / np.sqrt(np.mean(hann**2))).reshape(along)
    return window


def _shells(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[NDArray[np.intp], float, int]:
    """The shell of each mode, flat; the width of a shell; and the last shell that is whole."""
    width = min(2 * math.pi / (n * h) for n, h in zip(shape, spacing, strict=True))
    along = [2 * math.pi * np.fft.fftfreq(n, h) for n, h in zip(shape, spacing, strict=True)]
    length = np.sqrt(sum(k**2 for k in np.meshgrid(*along, indexing="ij")))
    nyquist = min(2 * math.pi * (n // 2) / (n * h) for n, h in zip(shape, spacing, strict=True))
    return np.rint(length / width).astype(np.intp).ravel(), width, math.floor(nyquist / width + 1e-9)
