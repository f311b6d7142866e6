"""The shallow-water equations on a rotating plane: eddies, and waves of gravity that leave them.

    du/dt + u . grad(u) + rotation (-u_y, u_x) = -gravity grad(height) - hyperviscosity laplacian^2(u)
    d height/dt + div((depth + height) u) = -hyperviscosity laplacian^2(height)

The linear terms are solved exactly: at each wavenumber they are a rotation among three variables, one that stands still
(balanced flow) and two waves of gravity, by which the state is integrated. The products steepen waves as in Burgers'
equation, so that a weak hyperviscosity takes out what becomes too short for the grid; it acts on every mode but the
mean.
"""

from __future__ import annotations

import numpy as np

from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation
from afresh.domains.field.systems.grid import Array, Grid
from afresh.domains.field.systems.initial import random_waves
from afresh.domains.field.systems.system import Parameter, Parameters, System


def linear_waves(grid: Grid, parameters: Parameters) -> tuple[Array, Array]:
    """Frequencies (trajectories or 1, 3, *modes) and waves (trajectories or 1, 3, 3, *modes), a unitary matrix of each
    mode whose columns are the waves in the variables u_x, u_y and height * root(gravity / depth)."""
    kx, ky = grid.wavenumbers
    speed = np.sqrt(parameters["gravity"] * parameters["depth"])[:, 0]  # (trajectories or 1, 1, 1)
    rotation = parameters["rotation"][:, 0]
    parts = np.broadcast_arrays(rotation, speed * kx, speed * ky)
    matrix = np.zeros((*parts[0].shape, 3, 3), complex)  # i times the linear terms, which makes it Hermitian
    turn, x, y = parts
    matrix[..., 0, 1], matrix[..., 1, 0] = 1j * turn, -1j * turn
    matrix[..., 0, 2] = matrix[..., 2, 0] = x
    matrix[..., 1, 2] = matrix[..., 2, 1] = y
    frequencies, waves = np.linalg.eigh(matrix)
    return np.moveaxis(frequencies, -1, 1), np.moveaxis(waves, (-2, -1), (1, 2))


def multiply(matrices: Array, modes: Array) -> Array:
    """The product at each mode of matrices (trajectories or 1, 3, 3, *modes) and (trajectories, 3, *modes)."""
    terms = [matrices[:, :, part] * modes[:, None, part] for part in range(3)]
    return terms[0] + terms[1] + terms[2]


def equation(grid: Grid, parameters: Parameters) -> Equation:
    kx, ky = grid.wavenumbers
    gravity, depth = parameters["gravity"], parameters["depth"]
    frequencies, waves = linear_waves(grid, parameters)
    inverse = waves.conj().swapaxes(1, 2)
    scales = np.concatenate([np.ones_like(gravity / depth)] * 2 + [np.sqrt(gravity / depth)], 1)
    x, y = 1j * kx * grid.alias_free, 1j * ky * grid.alias_free

    def to_modes(fields: Array) -> Array:
        return multiply(inverse, scales * grid.smooth_modes(fields))

    def to_fields(modes: Array) -> Array:
        return grid.to_fields(multiply(waves, modes)) / scales

    def nonlinear(modes: Array) -> Array:
        variables = multiply(waves, modes) / scales
        spin = x * variables[:, 1:2] - y * variables[:, 0:1]
        fields = grid.to_fields(np.concatenate([variables, spin], 1))
        u, v, height, vorticity = (fields[:, part] for part in range(4))
        products = np.stack([vorticity * v, -vorticity * u, (u * u + v * v) / 2, -height * u, -height * v], 1)
        turn_x, turn_y, head, flux_x, flux_y = np.moveaxis(grid.smooth_modes(products), 1, 0)
        rates = np.stack([turn_x - x * head, turn_y - y * head, x * flux_x + y * flux_y], 1)
        return multiply(inverse, scales * rates)

    linear = -1j * frequencies - parameters["hyperviscosity"] * grid.laplacian**2
    return Equation(linear, nonlinear, to_modes, to_fields)


def initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
    """Random waves of height of 2 to 4 periods with root mean square 0.08 times the depth, and the flow that balances
    them where there is rotation; beside them waves without balance, a quarter as high."""
    kx, ky = grid.wavenumbers
    shape = random_waves(rng, "shallow-water", numbers, grid, 4, 2)
    balanced = 0.08 * parameters["depth"][:, 0] * shape
    free = 0.02 * parameters["depth"][:, 0] * random_waves(rng, "shallow-water/free", numbers, grid, 4)
    rotation = parameters["rotation"][:, 0]
    turns = np.where(rotation > 0, parameters["gravity"][:, 0] / np.where(rotation > 0, rotation, 1), 0)
    modes = grid.to_modes(balanced)
    flow = [-turns * grid.to_fields(1j * ky * modes), turns * grid.to_fields(1j * kx * modes)]
    return np.stack([*flow, balanced + free], 1)


SHALLOW_WATER = System(
    name="shallow-water",
    title="the shallow-water equations",
    about="Eddies and waves of gravity in a thin layer of water on a rotating plane.",
    paper="Vallis 2017, Atmospheric and Oceanic Fluid Dynamics, ch. 3",
    channels=("velocity_x", "velocity_y", "height"),
    dimensions=2,
    extent=2 * np.pi,
    points=64,
    step=0.1,
    substeps=2,
    largest_step=0.1,
    equation=equation,
    initial=initial,
    parameters={
        "gravity": Parameter("the acceleration that levels the surface", 1.0, 0.1, 10.0),
        "depth": Parameter("the mean depth", 1.0, 0.1, 10.0),
        "rotation": Parameter("twice the rate at which the plane turns", 2.0, 0.0, 10.0),
        "hyperviscosity": Parameter("how fast the shortest waves are damped", 3e-6, 0.0, 1e-2),
    },
)
