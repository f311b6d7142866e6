"""Quantities that equations conserve at their default parameters, of fields (trajectories, time, channels, *space)."""

from __future__ import annotations

import numpy as np

from afresh.domains.field.systems import System
from afresh.domains.field.systems.grid import Array

CONSERVED = {
    "burgers": "mean velocity",
    "kuramoto-sivashinsky": "mean velocity",
}


def conserved_quantities(of: System, states: Array) -> dict[str, Array]:
    """By name, (trajectories, time), of the quantities of the system; empty if it conserves none."""
    if of.name not in CONSERVED:
        return {}
    return {CONSERVED[of.name]: states.astype(np.float64).mean(of.grid(states.shape[-1]).axes)[..., 0]}
