"""Travelling waves, whose axes differ as those of real fields do: made in a moment, and periodic in space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def waves(
    trajectories: int = 12, steps: int = 20, channels: int = 2, space: tuple[int, ...] = (24, 32), seed: int = 0
) -> NDArray[np.float32]:
    """(trajectories, steps, channels, *space): sums of waves that travel along each axis, with phases of their own."""
    rng = np.random.default_rng(seed)
    out = np.zeros((trajectories, steps, channels, *space))
    time = np.arange(steps).reshape(1, -1, 1, *(1,) * len(space)) * 0.13
    for axis, points in enumerate(space):
        x = (
            np.arange(points).reshape(1, 1, 1, *(-1 if i == axis else 1 for i in range(len(space))))
            * 2
            * np.pi
            / points
        )
        for k in (1, 2, 3):
            phase = rng.uniform(0, 2 * np.pi, (trajectories, 1, channels, *(1,) * len(space)))
            size = rng.normal(size=(trajectories, 1, channels, *(1,) * len(space)))
            out += size * np.sin(k * x + phase + k * time)
    return out.astype(np.float32)
