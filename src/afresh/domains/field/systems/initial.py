"""Random fields from which trajectories start: each is a function of the seed and of the number of its trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from afresh.core.rng import Rng
from afresh.domains.field.systems.grid import Array, Grid

PURPOSE = "systems"


def random_waves(rng: Rng, purpose: str, numbers: Array, grid: Grid, highest: int) -> Array:
    """Sums of waves with normal amplitudes, (trajectories, *space), of mean 0 and root mean square 1.

    The waves have up to `highest` periods along each axis. The same field, finer, on a finer grid.
    """
    count = 2 * highest + 1
    shape = (2, *(count,) * grid.dimensions)
    draws = rng.normal(f"{PURPOSE}/{purpose}", torch.from_numpy(numbers), shape).double().numpy()
    periods = np.arange(-highest, highest + 1)
    distance = np.sqrt(sum(p**2 for p in np.ix_(*[periods] * grid.dimensions)))
    amplitudes = (draws[:, 0] + 1j * draws[:, 1]) * (distance >= 1)
    modes = np.zeros((len(numbers), *grid.shape), complex)
    place: tuple[Any, ...] = (slice(None), *np.ix_(*[periods] * grid.dimensions))
    modes[place] = amplitudes
    waves = np.fft.ifftn(modes, axes=grid.axes).real
    return waves / np.sqrt((waves**2).mean(grid.axes, keepdims=True))
