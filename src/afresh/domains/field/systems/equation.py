"""An equation of evolution, and its solution by exponential time differencing with a Runge-Kutta method of fourth
order, ETDRK4.

For du/dt = L u + N(u) with L diagonal in Fourier space: the linear part is solved exactly, however stiff it is, and N
is taken by four stages (Cox and Matthews 2002, eqs. 26 to 29). The formulas of the coefficients cancel where L is
small, so that each is computed as the mean over a circle around L, to which it is equal (Kassam and Trefethen 2005).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from afresh.domains.field.systems.grid import Array

CIRCLE = 32  # points on the circle of radius 1; the error of the mean is of the order of 1 / 32!


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


@dataclass(frozen=True)
class Coefficients:
    """Those of one step, each of the shape of `linear`."""

    whole: Array  # exp(L h)
    half: Array  # exp(L h / 2)
    stage: Array  # Q of Kassam and Trefethen
    first: Array  # f1
    middle: Array  # 2 f2
    last: Array  # f3


def coefficients(linear: Array, step: float) -> Coefficients:
    """For steps of one length. `linear`: the diagonal of L, real or complex, of any shape."""
    z = linear * step
    stage, first, middle, last = (np.zeros(z.shape, complex) for _ in range(4))
    for root in np.exp(2j * np.pi * (np.arange(CIRCLE) + 0.5) / CIRCLE):
        r = z + root
        whole, cube = np.exp(r), r**3
        stage += (np.exp(r / 2) - 1) / r
        first += (-4 - r + whole * (4 - 3 * r + r**2)) / cube
        middle += 2 * (2 + r + whole * (r - 2)) / cube
        last += (-4 - 3 * r - r**2 + whole * (4 - r)) / cube
    means = [total * (step / CIRCLE) for total in (stage, first, middle, last)]
    if not np.iscomplexobj(linear):
        means = [mean.real for mean in means]
    return Coefficients(np.exp(z), np.exp(z / 2), *means)


def advance(modes: Array, of: Coefficients, nonlinear: Callable[[Array], Array]) -> Array:
    """The modes one step later."""
    halfway = of.half * modes
    now = nonlinear(modes)
    a = halfway + of.stage * now
    at_a = nonlinear(a)
    b = halfway + of.stage * at_a
    at_b = nonlinear(b)
    c = of.half * a + of.stage * (2 * at_b - now)
    return of.whole * modes + of.first * now + of.middle * (at_a + at_b) + of.last * nonlinear(c)
