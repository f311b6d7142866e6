"""What a physical system is here: an equation with its defaults, from which trajectories are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.domains.field.systems.equation import Equation, solve
from afresh.domains.field.systems.grid import Array, Grid

BLOCK = 1 << 14  # numbers of all trajectories that are computed at once: they then stay in the cache of a processor

Given = Mapping[str, float | Sequence[float] | Array]  # by name, one number or one for each trajectory
Parameters = Mapping[str, Array]  # by name, in a shape that broadcasts to what they are used with


@dataclass(frozen=True)
class Parameter:
    """A number in an equation. `lowest` and `highest`: between which it is accepted."""

    about: str
    default: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class System:
    """An equation with periodic boundaries and the setting in which it is solved by default.

    `extent`: the length of each axis of space, `points` along it. `step`: the time between two states, which the solver
    takes in `substeps`, so that the error of a state is below 1e-5. `warm_up`: the steps that are computed and left out
    before the first state. `least_points`: below which the first states cannot be written. Other settings:
    `dataclasses.replace`.

    `equation` takes a grid and the parameters, each (trajectories or 1, 1, ...) so that it broadcasts to the modes.
    `initial` takes random numbers, the numbers of the trajectories (trajectories,), a grid and such parameters, and
    returns fields (trajectories, channels, *space).
    """

    name: str
    title: str
    about: str
    paper: str
    channels: tuple[str, ...]
    dimensions: int
    extent: float
    points: int
    step: float
    substeps: int
    equation: Callable[[Grid, Parameters], Equation]
    initial: Callable[[Rng, Array, Grid, Parameters], Array]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    warm_up: int = 0
    least_points: int = 32

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether each axis of space is."""
        return (True,) * self.dimensions

    def grid(self, points: int | None = None) -> Grid:
        """`points` along each axis, or the default. Raises UserError for a number that cannot be used."""
        count = self.points if points is None else points
        if count < self.least_points or count % 2:
            raise UserError(
                f"{self.title} on {count:,} points along each axis cannot be computed. Give an even number of at least "
                f"{self.least_points}, such as {self.points}.",
                "points",
            )
        return Grid(count, self.extent, self.dimensions)

    def states(
        self,
        seed: int,
        trajectories: int,
        steps: int,
        points: int | None = None,
        parameters: Given | None = None,
        first: int = 0,
    ) -> Array:
        """Trajectories number `first` and following, (trajectories, steps + 1, channels, *space) in float32.

        Each has its first state and `steps` more, computed in float64. A parameter is one number, or one for each
        trajectory. A trajectory is the same, bit for bit, whatever others are computed beside it. Raises UserError for
        what cannot be computed, and where the solution leaves the finite numbers.
        """
        grid = self.grid(points)
        given = self.numbers(parameters or {})
        out = np.empty((trajectories, steps + 1, len(self.channels), *grid.shape), np.float32)
        size = max(1, BLOCK // (len(self.channels) * grid.points**grid.dimensions))
        for start in range(0, trajectories, size):
            rows = slice(start, min(start + size, trajectories))
            here = {name: numbers[rows] if len(numbers) > 1 else numbers for name, numbers in given.items()}
            numbers = np.arange(first + rows.start, first + rows.stop)
            fields = self.initial(Rng(seed), numbers, grid, self._beside(here, grid.dimensions + 1))
            out[rows] = self.rollout(fields, steps, here, self.warm_up)
        return out

    def rollout(
        self,
        fields: Array,
        steps: int,
        parameters: Given | None = None,
        warm_up: int = 0,
    ) -> Array:
        """What follows from given fields (trajectories, channels, *space), in float64.

        Returns (trajectories, steps + 1, channels, *space): the fields without the modes that the solver does not keep,
        or after `warm_up` steps, and the states after. Raises UserError as `states` does.
        """
        grid = self.grid(fields.shape[-1])
        given = self.numbers(parameters or {})
        equation = self.equation(grid, self._beside(given, grid.dimensions + 1))
        with np.errstate(over="ignore", invalid="ignore"):
            states = solve(equation, fields, self.step, self.substeps, steps, warm_up)
        if not np.isfinite(states).all():
            raise UserError(
                f"The solution of {self.title} left the finite numbers at {grid.points} points, with {self.substeps} "
                f"steps of the solver for each of {self.step:g}. Use more points or a shorter step, or parameters "
                "nearer to the defaults.",
                "unstable",
            )
        return states

    def numbers(self, given: Given) -> dict[str, Array]:
        """Every parameter by name, (trajectories or 1,) in float64."""
        return {k: np.atleast_1d(np.asarray(given.get(k, p.default), np.float64)) for k, p in self.parameters.items()}

    @staticmethod
    def _beside(parameters: Mapping[str, Array], axes: int) -> dict[str, Array]:
        """Each (trajectories or 1,) with so many axes of length 1 behind it."""
        return {name: numbers.reshape(-1, *(1,) * axes) for name, numbers in parameters.items()}
