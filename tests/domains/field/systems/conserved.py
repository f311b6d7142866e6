"""Quantities that equations conserve at their default parameters, of fields (trajectories, time, channels, *space)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from afresh.domains.field.systems import System
from afresh.domains.field.systems.grid import Array


def conserved_quantities(of: System, states: Array, given: Mapping[str, float] | None = None) -> dict[str, Array]:
    """By name, (trajectories, time), of the quantities of the system; empty if it conserves none."""
    grid, fields = of.grid(states.shape[-1]), states.astype(np.float64)
    known = {name: p.default for name, p in of.parameters.items()} | dict(given or {})
    means = fields.mean(grid.axes)
    if of.name in ("burgers", "kuramoto-sivashinsky"):
        return {"mean velocity": means[..., 0]}
    if of.name == "kolmogorov-flow":
        return {"mean vorticity": means[..., 0]}
    if of.name == "korteweg-de-vries":  # the Hamiltonian is the mean of u^3 / 6 - dispersion (du/dx)^2 / 2
        slope = grid.to_fields(1j * grid.wavenumbers[0] * grid.smooth_modes(fields))
        energy = (fields**3 / 6 - known["dispersion"] * slope**2 / 2).mean(grid.axes)[..., 0]
        return {"mass": means[..., 0], "momentum": (fields**2 / 2).mean(grid.axes)[..., 0], "energy": energy}
    if of.name == "shallow-water":  # hyperviscosity takes a little of the energy away
        u, v, height = (fields[..., part, :, :] for part in range(3))
        energy = (known["depth"] + height) * (u * u + v * v) + known["gravity"] * height**2
        return {"mean height": means[..., 2], "energy": energy.mean(grid.axes) / 2}
    return {}
