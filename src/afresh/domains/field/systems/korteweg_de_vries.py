"""The Korteweg-de Vries equation, du/dt + u du/dx + dispersion d3u/dx3 = 0: solitons that pass through each other."""

from __future__ import annotations

from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation
from afresh.domains.field.systems.grid import Array, Grid
from afresh.domains.field.systems.initial import random_waves
from afresh.domains.field.systems.self_advection import self_advection
from afresh.domains.field.systems.system import Parameter, Parameters, System


def equation(grid: Grid, parameters: Parameters) -> Equation:
    linear = parameters["dispersion"] * 1j * grid.wavenumbers[0] ** 3 * grid.alias_free
    return Equation(linear, self_advection(grid), grid.smooth_modes, grid.to_fields)


def initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
    """Waves of up to 3 periods, of root mean square 1/2."""
    return 0.5 * random_waves(rng, "korteweg-de-vries", numbers, grid, 3)[:, None]


KORTEWEG_DE_VRIES = System(
    name="korteweg-de-vries",
    title="the Korteweg-de Vries equation",
    about="Waves that split into solitons, which pass through each other: du/dt + u du/dx + dispersion d3u/dx3 = 0.",
    paper="Zabusky and Kruskal 1965, interaction of solitons in a collisionless plasma, Phys. Rev. Lett.",
    channels=("elevation",),
    dimensions=1,
    extent=2.0,
    points=128,
    step=0.02,
    substeps=8,
    largest_step=0.02,
    equation=equation,
    initial=initial,
    parameters={"dispersion": Parameter("how much faster long waves are than short ones", 0.0025, 0.0001, 0.1)},
)
