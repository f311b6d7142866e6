"""The solvers of physical systems: their distance from published reference solutions, and the seconds that they take.

The references are those of PINNs (Raissi et al. 2019), computed by others with other programs. Their settings, which
the files do not hold, were found by regressing du/dt on the terms of each equation: the Kuramoto-Sivashinsky file has
-5/pi, -(5/pi)^2/15 and -(5/pi)^4/15^3 before u du/dx and the second and fourth derivatives on [-1, 1] and [0, 1], which
are coefficients of 1 on an extent of 6 pi and a time of 15.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.io import loadmat

from afresh.domains.field.systems import SYSTEMS, System
from afresh.domains.field.systems.grid import Array
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.results import Row, save

DATA = "pde_pinns"
TRAJECTORIES, STEPS = {1: 80, 2: 20}, {1: 200, 2: 100}  # by dimensions of space


@dataclass(frozen=True)
class Reference:
    """A file with a solution, (points, time), and the setting in which it was computed.

    `finer`: so many intervals of the solver's grid to one of the file's. `closed`: its last point is the first again.
    """

    file: str
    variable: str
    system: System
    goal: float  # of the root mean square of the difference, as a part of that of the solution
    parameters: Mapping[str, float] = field(default_factory=dict)
    finer: int = 1
    closed: bool = False

    def solution(self) -> Array:
        """(time, points) in float64, each point once."""
        values: Array = loadmat(data_folder(DATA) / self.file)[self.variable].T
        return values[:, :-1] if self.closed else values

    def starts(self, points: int) -> Array:
        """The first state at so many points from -1 to 1, (points,)."""
        x = np.linspace(-1, 1, points, endpoint=False)
        first: Mapping[str, Array] = {
            "burgers_shock.mat": -np.sin(np.pi * x),
            "KS.mat": -np.sin(np.pi * x),
        }
        return first[self.file]


REFERENCES = (
    Reference(
        "burgers_shock.mat",
        "usol",
        replace(SYSTEMS["burgers"], step=0.01, substeps=16),
        1e-8,
        {"viscosity": 0.01 / np.pi},
        finer=8,
        closed=True,
    ),
    Reference(
        "KS.mat",
        "uu",
        replace(SYSTEMS["kuramoto-sivashinsky"], extent=6 * np.pi, step=0.075, substeps=16),
        1e-8,
        closed=True,
    ),
)


def compared(reference: Reference) -> Row:
    truth = reference.solution()
    fields = reference.starts(truth.shape[1] * reference.finer)
    states = reference.system.rollout(fields[None, None], len(truth) - 1, reference.parameters)
    difference = states[0, :, 0, :: reference.finer] - truth
    error = float(np.sqrt((difference**2).mean() / (truth**2).mean()))
    print(f"{reference.file}: {error:.1e}, greatest {np.abs(difference).max():.1e}", flush=True)
    return Row(
        reference.system.title,
        "root mean square of the difference from the reference, as a part of it",
        f"{error:.1e}; greatest difference {np.abs(difference).max():.1e}",
        reference.file,
        goal=f"at most {reference.goal:g}",
        reached=error <= reference.goal,
        n=f"{truth.shape[0]} states of {truth.shape[1]} points",
    )


def timed(system: System) -> Row:
    trajectories, steps = TRAJECTORIES[system.dimensions], STEPS[system.dimensions]
    begin = time.process_time()
    system.states(0, trajectories, steps)
    seconds = time.process_time() - begin
    print(f"{system.name}: {seconds:.1f} s", flush=True)
    shape = "x".join([str(system.points)] * system.dimensions)
    return Row(
        system.title,
        "seconds of one core for a data set at the defaults, warm-up counted",
        f"{seconds:.1f} s",
        n=f"{trajectories} trajectories of {steps} steps, {shape} points",
    )


def main() -> None:
    save("field_systems", [*map(compared, REFERENCES), *map(timed, SYSTEMS.values())])


BENCHMARKS = (Benchmark("field_systems", ("pde_pinns",), 3, main),)
