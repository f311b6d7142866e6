"""The Kuramoto-Sivashinsky equation, du/dt + u du/dx + d2u/dx2 + hyperviscosity d4u/dx4 = 0: chaos in space and time.

The default is the setting of APEBench (Koehler et al. 2024, scenario "diff_ks_cons"), which states it by difficulties:
on 160 points, -2 for the second derivative, -18 for the fourth and -1 for the advection. With hyperviscosity 1 these
are an extent of 320/3 and a step of 4/9, while its field is 2/3 of the one here; 500 steps of warm-up.
"""

from __future__ import annotations

from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation
from afresh.domains.field.systems.grid import Array, Grid
from afresh.domains.field.systems.initial import random_waves
from afresh.domains.field.systems.self_advection import self_advection
from afresh.domains.field.systems.system import Parameter, Parameters, System


def equation(grid: Grid, parameters: Parameters) -> Equation:
    linear = -grid.laplacian - parameters["hyperviscosity"] * grid.laplacian**2
    return Equation(linear, self_advection(grid), grid.smooth_modes, grid.to_fields)


def initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
    """Waves of up to 5 periods, of root mean square 1/2."""
    return 0.5 * random_waves(rng, "kuramoto-sivashinsky", numbers, grid, 5)[:, None]


KURAMOTO_SIVASHINSKY = System(
    name="kuramoto-sivashinsky",
    title="the Kuramoto-Sivashinsky equation",
    about="Flame fronts in chaos: du/dt + u du/dx + d2u/dx2 + hyperviscosity d4u/dx4 = 0.",
    paper="Kuramoto and Tsuzuki 1976, persistent propagation of concentration waves; Sivashinsky 1977, instability in "
    "laminar flames; setting of Koehler et al. 2024, APEBench",
    channels=("velocity",),
    dimensions=1,
    extent=320 / 3,
    points=160,
    step=4 / 9,
    substeps=4,
    warm_up=500,
    equation=equation,
    initial=initial,
    parameters={"hyperviscosity": Parameter("how fast short waves are damped", 1.0, 0.5, 2.0)},
)
