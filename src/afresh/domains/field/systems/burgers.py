"""Burgers' equation, du/dt + u du/dx = viscosity d2u/dx2: waves steepen to shocks, which merge and decay."""

from __future__ import annotations

from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation
from afresh.domains.field.systems.grid import Array, Grid
from afresh.domains.field.systems.initial import random_waves
from afresh.domains.field.systems.self_advection import self_advection
from afresh.domains.field.systems.system import Parameter, Parameters, System


def equation(grid: Grid, parameters: Parameters) -> Equation:
    linear = parameters["viscosity"] * grid.laplacian
    return Equation(linear, self_advection(grid), grid.smooth_modes, grid.to_fields)


def initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
    """Waves of up to 4 periods, of root mean square 1/2."""
    return 0.5 * random_waves(rng, "burgers", numbers, grid, 4)[:, None]


BURGERS = System(
    name="burgers",
    title="Burgers' equation",
    about="Waves that steepen to shocks, which merge and decay: du/dt + u du/dx = viscosity d2u/dx2.",
    paper="Burgers 1948, a mathematical model illustrating the theory of turbulence",
    channels=("velocity",),
    dimensions=1,
    extent=2.0,
    points=256,
    step=0.02,
    substeps=2,
    equation=equation,
    initial=initial,
    parameters={"viscosity": Parameter("how fast differences of velocity even out", 0.02, 0.0, 1.0)},
)
