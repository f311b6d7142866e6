"""Waves that drift around a ring, of which everything is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_drifting(
    folder: Path, trajectories: int = 12, steps: int = 6, points: int = 16, speeds: bool = False, mask: bool = False
) -> Path:
    """A file of trajectories of `steps` states; with a speed of each, and with an input that does not change."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    x, t = np.arange(points) / points, np.arange(float(steps))
    speed = rng.uniform(0.05, 0.1, trajectories) if speeds else np.full(trajectories, 0.07)
    phase = rng.random(trajectories)
    moved = x - speed[:, None, None] * t[:, None] - phase[:, None, None]
    u = 3 + 2 * np.sin(2 * np.pi * moved) + np.sin(4 * np.pi * moved + 6 * phase[:, None, None])
    more = {"speed": speed} if speeds else {}
    more |= {"terrain": np.cos(2 * np.pi * x) + 2} if mask else {}
    np.savez(folder / "waves.npz", u=u, t=t, x=x, **more)
    return folder
