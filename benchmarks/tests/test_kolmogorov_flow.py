"""Solutions of the Kolmogorov flow that are known in closed form, and what it conserves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tests.domains.field.systems.test_exact_solutions import end

from benchmarks.fields.kolmogorov_flow import KOLMOGOROV_FLOW


def test_a_vortex_array_of_taylor_and_green_decays_by_viscosity_and_drag_alone() -> None:
    of, parameters = KOLMOGOROV_FLOW, {"forcing": 0.0, "viscosity": 0.05, "drag": 0.2}
    x, y = of.grid(32).coordinates
    vortices = 3 * np.sin(2 * x) * np.sin(3 * y)
    decay = np.exp(-(0.05 * (4 + 9) + 0.2) * 10 * of.step)
    assert np.allclose(end(of, vortices[None], 10, parameters)[0], decay * vortices, atol=1e-13)


def test_the_laminar_flow_rests_under_its_force() -> None:
    """vorticity = -4 forcing cos(4 y) / (16 viscosity + drag)."""
    of = KOLMOGOROV_FLOW
    laminar = -4 * 1.5 * np.cos(4 * of.grid(32).coordinates[1]) / (16 * 0.5 + 0.1) * np.ones((32, 32))
    assert np.allclose(end(of, laminar[None], 10, {"viscosity": 0.5, "forcing": 1.5})[0], laminar, atol=1e-13)


def test_a_flow_without_friction_keeps_energy_and_enstrophy() -> None:
    of = replace(KOLMOGOROV_FLOW, substeps=16)
    grid = of.grid(32)
    x, y = grid.coordinates
    vorticity = np.sin(2 * x + y) + np.cos(x - 3 * y) + np.sin(3 * x)
    states = of.rollout(vorticity[None, None], 5, {"viscosity": 0.0, "drag": 0.0, "forcing": 0.0})[0, :, 0]
    inverse = np.divide(1, grid.laplacian, out=np.zeros_like(grid.laplacian), where=grid.laplacian != 0)
    stream = grid.to_fields(inverse * grid.to_modes(states))
    for values in ((states**2).mean(grid.axes), (states * stream).mean(grid.axes)):
        assert np.abs(values / values[0] - 1).max() < 1e-7
    assert np.abs(states[-1] - states[0]).max() > 0.1
