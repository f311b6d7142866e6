"""The Gray-Scott model: a substance that is fed, and another that consumes it, form spots, stripes and spirals.

    du/dt = diffusivity_u laplacian(u) - u v^2 + feed (1 - u)
    dv/dt = diffusivity_v laplacian(v) + u v^2 - (feed + kill) v

By default spots divide and die without end (pattern epsilon of Pearson 1993), and fill space after the warm-up.
The cubic is not freed of aliases: diffusion leaves next to nothing in the modes that alias, at the default spacing.
"""

from __future__ import annotations

import numpy as np
import torch

from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation
from afresh.domains.field.systems.grid import Array, Grid
from afresh.domains.field.systems.system import PURPOSE, Parameter, Parameters, System

BLOBS = 8  # places of a trajectory where the second substance is at first


def equation(grid: Grid, parameters: Parameters) -> Equation:
    feed, kill = parameters["feed"], parameters["kill"]
    first = parameters["diffusivity_u"] * grid.laplacian - feed
    second = parameters["diffusivity_v"] * grid.laplacian - feed - kill
    linear = np.concatenate(np.broadcast_arrays(first, second), 1)
    fed = feed * grid.to_modes(np.ones(grid.shape))

    def nonlinear(modes: Array) -> Array:
        fields = grid.to_fields(modes)
        u, v = fields[:, :1], fields[:, 1:]
        consumed = grid.to_modes(u * v * v)
        return np.concatenate([fed - consumed, consumed], 1)

    return Equation(linear, nonlinear, grid.to_modes, grid.to_fields)


def initial(rng: Rng, numbers: Array, grid: Grid, parameters: Parameters) -> Array:
    """u = 1 and v = 0, but in round places at random where v is up to a half and u is as much less than 1."""
    drawn = rng.uniform(f"{PURPOSE}/gray-scott", torch.from_numpy(numbers), (BLOBS, 4)).double().numpy()
    draws = drawn[..., None, None]
    centres, width, height = draws[:, :, :2], 0.03 + 0.05 * draws[:, :, 2], 0.25 + 0.25 * draws[:, :, 3]
    distance = sum(
        (np.sin(np.pi * (line / grid.extent - centres[:, :, axis])) / np.pi) ** 2
        for axis, line in enumerate(grid.coordinates)
    )
    v = (height * np.exp(-distance / (2 * width**2))).sum(1)
    v = v / (1 + v)
    return np.stack([1 - v, v], 1)


GRAY_SCOTT = System(
    name="gray-scott",
    title="the Gray-Scott model",
    about="Two substances that react and diffuse, and form spots, stripes and spirals.",
    paper="Pearson 1993, complex patterns in a simple system, Science; a quarter of his square along each axis, at his "
    "spacing",
    channels=("u", "v"),
    dimensions=2,
    extent=0.625,
    points=64,
    step=10.0,
    substeps=8,
    warm_up=50,
    equation=equation,
    initial=initial,
    parameters={
        "feed": Parameter("how fast the first substance is fed", 0.02, 0.0, 0.1),
        "kill": Parameter("how fast the second substance is taken away", 0.056, 0.0, 0.1),
        "diffusivity_u": Parameter("how fast the first substance spreads", 2e-5, 1e-5, 1e-3),
        "diffusivity_v": Parameter("how fast the second substance spreads", 1e-5, 5e-6, 1e-3),
    },
)
