"""Observations of states: values at some of the points, or means of blocks of points, with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Observations, UserError
from afresh.core.plural import counted
from afresh.data.files import DataFile, FileError, must_exist
from afresh.domains.field.encoder import FieldEncoder
from afresh.domains.field.reading.files import OPEN, open_contents
from afresh.domains.field.reading.names import axis_of
from afresh.engine.sampling.energy import blocks


@dataclass(frozen=True)
class Observed:
    """values: (C, *coarse) in physical units, with NaN where nothing was observed; C is that of the run's items, which
    hold the channels of each state of a window after one another. factors: the points of a block along each axis; 1
    where values are those of points. noise: the standard deviation of the noise of each channel, in its units."""

    encoder: FieldEncoder
    values: NDArray[np.float64]
    factors: tuple[int, ...]
    noise: tuple[float, ...]

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.isfinite(self.values)

    @property
    def count(self) -> int:
        return int(self.known.sum())

    @property
    def described(self) -> str:
        """Such as "16 of 160 points, with noise of 0.1"."""
        noise = ", ".join(f"{n:g}" for n in self.noise)
        if set(self.factors) == {1}:
            return f"{self.count:,} of {self.values.size:,} values at points, with noise of {noise}"
        block = " x ".join(map(str, self.factors))
        return f"{self.count:,} of {self.values.size:,} means of blocks of {block} points, with noise of {noise}"

    def of(self, states: NDArray[Any]) -> NDArray[np.float64]:
        """What is observed of states (n, C, *space) in physical units without noise, (n, count)."""
        return self.seen(torch.from_numpy(np.asarray(states, np.float64))).numpy()

    def seen(self, x: Tensor) -> Tensor:
        """The same of tensors, of any units."""
        x = x if set(self.factors) == {1} else blocks(x, self.factors)
        return x.flatten(1)[:, torch.from_numpy(np.flatnonzero(self.known)).to(x.device)]

    @property
    def each_noise(self) -> NDArray[np.float64]:
        """The standard deviation of the noise of each observation, (count,)."""
        along = self.encoder.along(self.noise, len(self.values))
        return np.broadcast_to(along, self.values.shape)[self.known]

    def task(self, iterations: int) -> Observations:
        """The observations in the units of the space, in which each channel has the deviation 1."""
        unit = self.encoder.unit(self.values)
        std = np.broadcast_to(self.encoder.along(self.encoder.std, len(self.values)), self.values.shape)
        noise = torch.from_numpy(self.each_noise / std[self.known]).float()
        return Observations(self.seen, unit[torch.from_numpy(self.known)], noise, iterations)

    def chi_square(self, states: NDArray[Any]) -> float:
        """The reduced chi-square of states (n, C, *space): the mean square of what they leave of the observations, in
        deviations of the noise. Its mean is 1 for draws of the posterior, as for the truth, if the noise is as large
        as was said: given the observations, the two cannot be told apart."""
        left = (self.values[self.known] - self.of(states)) / self.each_noise
        return float(np.square(left).mean())


def read_observations(path: Path, encoder: FieldEncoder, noise: Sequence[float]) -> Observed:
    """The observations of a file: an array of the shape of the run's states, or of a coarser grid, with NaN where
    nothing was observed, or such an array for each channel that was. Raises UserError for what does not fit the run."""
    values = read_array(path, encoder)
    factors = factors_of(path, encoder, values.shape[1:])
    known = int(np.isfinite(values).sum())
    if not known:
        raise UserError(
            f"{path} has no observation: every value is missing. Give numbers where something was observed, and NaN "
            "elsewhere."
        )
    channels = len(encoder.channels)
    if len(noise) not in (1, channels) or not all(np.isfinite(n) and n > 0 for n in noise):
        raise UserError(
            f"The noise of observations is its standard deviation in the units of the data, above 0: one number for "
            f"all channels, or one for each of {', '.join(encoder.channels)}. Given: "
            f"{', '.join(f'{n:g}' for n in noise)}."
        )
    return Observed(encoder, values, factors, tuple(noise) * (channels if len(noise) == 1 else 1))


def read_truth(path: Path, encoder: FieldEncoder) -> NDArray[np.float64]:
    """A whole state (C, *space) of a file. Raises UserError for another shape and for missing values."""
    values = read_array(path, encoder)
    if values.shape != encoder.space.shape or not np.isfinite(values).all():
        missing = int((~np.isfinite(values)).sum())
        raise UserError(
            f"The truth has a finite value of every channel at every point: {shape_of(encoder)}. {path} has the shape "
            f"{values.shape} and {counted(missing, 'missing value')}."
        )
    return values


def read_array(path: Path, encoder: FieldEncoder) -> NDArray[np.float64]:
    """The array (C, *grid) of a file, of any grid, with NaN for what is missing. Raises UserError for a file that
    cannot be read, or of which it cannot be told which array is meant."""
    must_exist(path)
    if path.suffix.lower() not in OPEN:
        raise UserError(f"{path} is not a file of arrays. Accepted: {', '.join(OPEN)}.")
    try:
        found = open_contents(DataFile(path, path.name, 0)).variables
        named = {name: found[name].read() for name in encoder.channels if name in found}
        others = [v for name, v in found.items() if len(found) == 1 or not (axis_of(name) or v.role == "coordinate")]
        alone = others[0].read() if not named and len(others) == 1 else None
    except FileError as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if not named and alone is None:
        raise UserError(
            f"{path} has the arrays {', '.join(found) or 'of no name'}. Give one array, or one for each channel that "
            f"was observed, by its name: {', '.join(encoder.channels)}."
        )
    if named:
        shapes = {a.shape for a in named.values()}
        if len(shapes) > 1:
            raise UserError(f"The channels of {path} have different shapes: {', '.join(map(str, sorted(shapes)))}.")
        window = (encoder.window,)
        rows = [laid_out(path, encoder, named[c], window) if c in named else None for c in encoder.channels]
        grid = next(r for r in rows if r is not None)
        array = np.stack([np.full(grid.shape, np.nan) if r is None else r for r in rows], 1)
    else:
        array = laid_out(path, encoder, np.asarray(alone), (encoder.window, len(encoder.channels)))
    values = np.asarray(array, np.float64).reshape(-1, *array.shape[2:])  # (window C, *grid)
    for fill in encoder.options.get("fill") or ():
        values = np.where(values == fill, np.nan, values)
    if np.isinf(values).any():
        raise UserError(f"{path} has infinite values. Give NaN where nothing was observed.")
    return values


def laid_out(path: Path, encoder: FieldEncoder, array: NDArray[Any], lead: tuple[int, ...]) -> NDArray[np.float64]:
    """An array (*lead, *grid), where `lead` is (window,) or (window, C). An axis before the grid may be left out where
    it has the length 1."""
    rank = len(encoder.points)
    given = array.shape[: max(0, array.ndim - rank)]
    if array.ndim < rank or given not in (lead, tuple(n for n in lead if n > 1), lead[1:] if lead[0] == 1 else lead):
        raise UserError(
            f"{path} has an array of the shape {array.shape}. The run's states have the shape {shape_of(encoder)}: "
            "give an array of that shape with NaN where nothing was observed, or one of a coarser grid whose "
            "values are means of blocks of points.",
            "observations_shape",
        )
    return np.asarray(array, np.float64).reshape(*lead, *array.shape[array.ndim - rank :])


def shape_of(encoder: FieldEncoder) -> str:
    """The shape of the run's items as arrays in files."""
    window = [f"{encoder.window} states"] if encoder.window > 1 else []
    axes = [f"{n} points along {axis}" for axis, n in zip(encoder.axes, encoder.points, strict=True)]
    return f"({', '.join([*window, counted(len(encoder.channels), 'channel'), *axes])})"


def factors_of(path: Path, encoder: FieldEncoder, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The points of a block along each axis of space. Raises UserError where the grid does not divide the run's."""
    points = encoder.points
    if len(grid) != len(points) or 0 in grid or any(n % m for n, m in zip(points, grid, strict=True)):
        raise UserError(
            f"{path} has the grid {grid}, and the run {points}: each axis of a coarser grid has to divide the run's, "
            "since its values are means of blocks of points. Average it to such a grid, or give an array of the run's "
            "own grid with NaN where nothing was observed.",
            "observations_shape",
        )
    return tuple(n // m for n, m in zip(points, grid, strict=True))
