"""An equation of evolution as the integrator sees it, and its solution from given fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from afresh.domains.field.systems.etdrk4 import advance, coefficients
from afresh.domains.field.systems.grid import Array


@dataclass(frozen=True)
class Equation:
    """du/dt = L u + N(u), where L is diagonal in the variables that are integrated.

    `linear`: the diagonal of L, (trajectories or 1, channels, *modes). `nonlinear`: N, from (trajectories, channels,
    *modes) to the same. `to_modes` and `to_fields`: from the fields (trajectories, channels, *space) to the variables
    that are integrated and back.
    """

    linear: Array
    nonlinear: Callable[[Array], Array]
    to_modes: Callable[[Array], Array]
    to_fields: Callable[[Array], Array]


def solve(equation: Equation, fields: Array, step: float, substeps: int, steps: int, warm_up: int = 0) -> Array:
    """The fields at each of `steps` further steps, (trajectories, steps + 1, channels, *space) in float64.

    `fields` (trajectories, channels, *space) are the first, of which only the modes that the equation keeps remain;
    where there is a warm-up, the first are those after so many steps. Each step is taken in `substeps`.
    """
    of = coefficients(equation.linear, step / substeps)
    modes = equation.to_modes(fields)
    out = np.empty((len(fields), steps + 1, *fields.shape[1:]))
    for number in range(-warm_up, steps + 1):
        if number > -warm_up:
            for _ in range(substeps):
                modes = advance(modes, of, equation.nonlinear)
        if number >= 0:
            out[:, number] = equation.to_fields(modes)
    return out
