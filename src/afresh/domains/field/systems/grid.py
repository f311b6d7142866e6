"""A periodic grid and the Fourier transform on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """`points` along each of `dimensions` axes of length `extent`. What follows the last point is the first again.

    Fields are real, (..., *shape). Their modes are complex, (..., points, ..., points // 2 + 1), as `numpy.fft.rfftn`
    orders them.
    """

    points: int
    extent: float
    dimensions: int

    @property
    def spacing(self) -> float:
        return self.extent / self.points

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.points,) * self.dimensions

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of space, counted from the last."""
        return tuple(range(-self.dimensions, 0))

    @cached_property
    def coordinates(self) -> tuple[Array, ...]:
        """Those of each axis, from 0 on, in a shape that broadcasts to `shape`."""
        line = np.arange(self.points) * self.spacing
        return tuple(np.ix_(*[line] * self.dimensions))

    @cached_property
    def wavenumbers(self) -> tuple[Array, ...]:
        """Those of each axis in radians per unit of length, in a shape that broadcasts to that of the modes."""
        unit = 2 * np.pi / self.extent
        whole = fft.fftfreq(self.points, 1 / self.points) * unit
        half = fft.rfftfreq(self.points, 1 / self.points) * unit
        return tuple(np.ix_(*[whole] * (self.dimensions - 1), half))

    @cached_property
    def laplacian(self) -> Array:
        """The factor of each mode that stands for the Laplacian: minus the square of its wavenumber."""
        return -np.sum(np.broadcast_arrays(*[k**2 for k in self.wavenumbers]), axis=0)

    @cached_property
    def alias_free(self) -> Array:
        """1 for the modes whose products alias onto none of them and 0 for the others, by the rule of two thirds
        (Orszag 1971, elimination of aliasing)."""
        highest = (self.points - 1) // 3 * 2 * np.pi / self.extent * (1 + 1e-9)
        kept = [np.abs(k) <= highest for k in self.wavenumbers]
        return np.prod(np.broadcast_arrays(*kept), axis=0).astype(np.float64)

    def to_modes(self, fields: Array) -> Array:
        return fft.rfftn(fields, axes=self.axes)

    def to_fields(self, modes: Array) -> Array:
        return fft.irfftn(modes, self.shape, axes=self.axes)

    def smooth_modes(self, fields: Array) -> Array:
        """The modes of the fields without those that are not alias-free."""
        return self.to_modes(fields) * self.alias_free
