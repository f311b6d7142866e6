"""The Allen-Cahn equation, du/dt = diffusivity laplacian(u) + rate (u - u^3): two phases part, and the regions grow.

The cubic is not freed of aliases: diffusion leaves nothing in the modes that alias, as long as an interface, whose
width is about the root of diffusivity / rate, spans more than one spacing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation
from afresh.domains.field.systems.grid import Array, Grid
from afresh.domains.field.systems.initial import random_waves
from afresh.domains.field.systems.system import Parameter, Parameters, System


def equation(grid: Grid, parameters: Parameters) -> Equation:
    rate = parameters["rate"]
    linear = parameters["diffusivity"] * grid.laplacian + rate

    def nonlinear(modes: Array) -> Array:
        u = grid.to_fields(modes)
        return -rate * grid.to_modes(u * u * u)

    return Equation(linear, nonlinear, grid.to_modes, grid.to_fields)


def waves_up_to(highest: int) -> Callable[[Rng, Array, Grid, Parameters], Array]:
    """Initial fields of waves of up to so many periods, of root mean square 1/2."""

    def initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
        return 0.5 * random_waves(rng, "allen-cahn", numbers, grid, highest)[:, None]

    return initial


ALLEN_CAHN = System(
    name="allen-cahn",
    title="the Allen-Cahn equation",
    about="Two phases that part, and whose regions grow: du/dt = diffusivity laplacian(u) + rate (u - u^3).",
    paper="Allen and Cahn 1979, a microscopic theory for antiphase boundary motion, Acta Metall.",
    channels=("phase",),
    dimensions=1,
    extent=2.0,
    points=256,
    step=0.05,
    substeps=4,
    largest_step=0.05,
    equation=equation,
    initial=waves_up_to(10),
    parameters={
        "diffusivity": Parameter("how fast differences of phase even out", 0.002, 0.00001, 0.1),
        "rate": Parameter("how fast the phases part", 5.0, 0.1, 10.0),
    },
)
ALLEN_CAHN_2D = replace(
    ALLEN_CAHN,
    name="allen-cahn-2d",
    title="the Allen-Cahn equation in two dimensions",
    dimensions=2,
    points=64,
    step=0.1,
    substeps=2,
    largest_step=0.1,
    initial=waves_up_to(8),
    parameters={**ALLEN_CAHN.parameters, "rate": replace(ALLEN_CAHN.parameters["rate"], default=1.0)},
)
