"""Two equations of one axis in which a field moves itself: Burgers' and that of Kuramoto and Sivashinsky.

Burgers: du/dt + u du/dx = viscosity d2u/dx2; waves steepen to shocks, which merge and decay. Kuramoto and Sivashinsky:
du/dt + u du/dx + d2u/dx2 + hyperviscosity d4u/dx4 = 0; chaos in space and time.

The default of the second is the setting of APEBench (Koehler et al. 2024, scenario "diff_ks_cons"), which states it by
difficulties: on 160 points, -2 for the second derivative, -18 for the fourth and -1 for the advection. With
hyperviscosity 1 these are an extent of 320/3 and a step of 4/9, while its field is 2/3 of the one here; 500 steps of
warm-up.
"""

from __future__ import annotations

from collections.abc import Callable

from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation
from afresh.domains.field.systems.grid import Array, Grid
from afresh.domains.field.systems.system import Parameter, Parameters, System, random_waves


def self_advection(grid: Grid) -> Callable[[Array], Array]:
    """N(u) = -u du/dx of a field of one axis, as the derivative of its square, so that the mean is conserved."""
    derivative = -0.5j * grid.wavenumbers[0] * grid.alias_free

    def nonlinear(modes: Array) -> Array:
        return derivative * grid.to_modes(grid.to_fields(modes) ** 2)

    return nonlinear


def burgers_equation(grid: Grid, parameters: Parameters) -> Equation:
    linear = parameters["viscosity"] * grid.laplacian
    return Equation(linear, self_advection(grid), grid.smooth_modes, grid.to_fields)


def burgers_initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
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
    equation=burgers_equation,
    initial=burgers_initial,
    parameters={"viscosity": Parameter("how fast differences of velocity even out", 0.02, 0.0, 1.0)},
)


def kuramoto_sivashinsky_equation(grid: Grid, parameters: Parameters) -> Equation:
    linear = -grid.laplacian - parameters["hyperviscosity"] * grid.laplacian**2
    return Equation(linear, self_advection(grid), grid.smooth_modes, grid.to_fields)


def kuramoto_sivashinsky_initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
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
    equation=kuramoto_sivashinsky_equation,
    initial=kuramoto_sivashinsky_initial,
    parameters={"hyperviscosity": Parameter("how fast short waves are damped", 1.0, 0.5, 2.0)},
)
