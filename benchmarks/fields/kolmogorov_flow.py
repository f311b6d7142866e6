"""Kolmogorov flow: the Navier-Stokes equations of two dimensions, stirred by a force that is a sine.

    d vorticity/dt + velocity . grad(vorticity) = viscosity laplacian(vorticity) - drag vorticity + curl(force)

The force acts along the first axis and is forcing * sin(4 y). The advection is written with two products of velocities
instead of the gradient of the vorticity, which needs four transforms a stage rather than five (Basdevant 1983).
"""

from __future__ import annotations

import numpy as np

from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation
from afresh.domains.field.systems.grid import Array, Grid
from afresh.domains.field.systems.initial import random_waves
from afresh.domains.field.systems.system import Parameter, Parameters, System

PERIODS = 4  # of the force along the second axis


def velocity_factors(grid: Grid) -> Array:
    """What turns the modes of a vorticity into those of its velocity, (2, *modes); the mean velocity is 0."""
    kx, ky = grid.wavenumbers
    inverse = np.divide(-1, grid.laplacian, out=np.zeros_like(grid.laplacian), where=grid.laplacian != 0)
    return np.stack([1j * ky * inverse, -1j * kx * inverse])


def equation(grid: Grid, parameters: Parameters) -> Equation:
    kx, ky = grid.wavenumbers
    velocity = velocity_factors(grid)
    along, across = kx * ky * grid.alias_free, (kx**2 - ky**2) * grid.alias_free
    wavenumber = PERIODS * 2 * np.pi / grid.extent
    wave = -wavenumber * np.cos(wavenumber * grid.coordinates[1]) * np.ones(grid.shape)
    force = parameters["forcing"] * grid.smooth_modes(wave)

    def nonlinear(modes: Array) -> Array:
        flow = grid.to_fields(velocity * modes)  # (trajectories, 2, *space)
        u, v = flow[:, 0], flow[:, 1]
        products = grid.to_modes(np.stack([u * v, v * v - u * u], 1))
        return across * products[:, :1] + along * products[:, 1:] + force

    linear = parameters["viscosity"] * grid.laplacian - parameters["drag"]
    return Equation(linear, nonlinear, grid.smooth_modes, grid.to_fields)


def initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
    """Waves of vorticity of up to 6 periods, of root mean square 2."""
    return 2 * random_waves(rng, "kolmogorov-flow", numbers, grid, 6)[:, None]


KOLMOGOROV_FLOW = System(
    name="kolmogorov-flow",
    title="Kolmogorov flow",
    about="A turbulent flow in two dimensions, stirred by a force that is a sine of the second axis.",
    paper="Chandler and Kerswell 2013, invariant recurrent solutions embedded in a turbulent two-dimensional "
    "Kolmogorov flow, J. Fluid Mech.; products of Basdevant 1983",
    channels=("vorticity",),
    dimensions=2,
    extent=2 * np.pi,
    points=64,
    step=0.2,
    substeps=8,
    warm_up=100,
    equation=equation,
    initial=initial,
    parameters={
        "viscosity": Parameter("how fast differences of velocity even out", 0.02, 0.0, 1.0),
        "drag": Parameter("how fast all motion is slowed", 0.1, 0.0, 1.0),
        "forcing": Parameter("the amplitude of the force", 1.0, 0.0, 4.0),
    },
)
