"""What holds for every system: order, accuracy of the defaults, convergence in points, seeds, and bad input."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.domains.field.systems import SYSTEMS, System
from afresh.domains.field.systems.grid import Array
from tests.domains.field.systems.conserved import conserved_quantities

each_system = pytest.mark.parametrize("name", SYSTEMS)


def first_fields(of: System, points: int, count: int = 1) -> Array:
    given = {name: parameter.reshape(-1, 1, 1, 1) for name, parameter in of.numbers({}).items()}
    if of.dimensions == 1:
        given = {name: numbers[..., 0] for name, numbers in given.items()}
    return of.initial(Rng(0), np.arange(count), of.grid(points), given)


def distance(found: Array, expected: Array) -> float:
    """The norm of the difference, as a part of that of the deviation from the mean."""
    axes = tuple(range(2, expected.ndim))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected - expected.mean(axes, keepdims=True)))


@pytest.mark.parametrize(
    "name, points, step",
    [
        ("burgers", 64, 0.1),
        ("kuramoto-sivashinsky", 160, 0.2),
        ("gray-scott", 32, 1.0),
    ],
)
def test_order_four_in_time(name: str, points: int, step: float) -> None:
    """The linear part is exact, so that what is left is the error of the nonlinear one."""
    of = replace(SYSTEMS[name], step=step, warm_up=0)
    fields = of.rollout(first_fields(of, points), 4)[:, -1]
    truth = replace(of, substeps=32).rollout(fields, 1)[:, -1]
    coarse, fine = (distance(replace(of, substeps=n).rollout(fields, 1)[:, -1], truth) for n in (2, 4))
    assert coarse > 1e-11
    assert np.log2(coarse / fine) == pytest.approx(4, abs=0.35)


@each_system
def test_the_defaults_are_accurate(name: str) -> None:
    """The error of a state is below 1e-5."""
    of = SYSTEMS[name]
    fields = replace(of, warm_up=min(of.warm_up, 20)).states(0, 1, 0)[:, 0].astype(np.float64)
    truth = replace(of, substeps=4 * of.substeps).rollout(fields, 1)[:, -1]
    assert distance(of.rollout(fields, 1)[:, -1], truth) < 1e-5


@pytest.mark.parametrize(
    "name, points, parameters, steps",
    [
        ("burgers", 32, {"viscosity": 0.1}, 5),
        ("kuramoto-sivashinsky", 96, {}, 2),
        ("gray-scott", 32, {"diffusivity_u": 1e-4, "diffusivity_v": 5e-5}, 2),
    ],
)
def test_twice_the_points_leave_a_thousandth_of_the_error(
    name: str, points: int, parameters: dict[str, float], steps: int
) -> None:
    """Faster than any power, as a spectral method does where the solution is smooth."""
    of = SYSTEMS[name]
    fields = first_fields(of, 4 * points)
    strides = (4, 2, 1)
    along = [fields[(..., *[slice(None, None, stride)] * of.dimensions)] for stride in strides]
    ends = [of.rollout(start, steps, parameters)[:, -1] for start in along]
    truth = ends[2]
    errors = [
        distance(end, truth[(..., *[slice(None, None, stride)] * of.dimensions)])
        for end, stride in zip(ends[:2], strides, strict=False)
    ]
    assert errors[1] < max(errors[0] / 1000, 1e-11)
    assert errors[1] < 1e-5


@each_system
def test_states_have_the_promised_shape(name: str) -> None:
    of = replace(SYSTEMS[name], warm_up=1)
    states = of.states(1, 2, 3, 32)
    assert states.shape == (2, 4, len(of.channels), *(32,) * of.dimensions)
    assert states.dtype == np.float32 and np.isfinite(states).all()
    assert of.periodic == (True,) * of.dimensions
    assert of.name == name


@each_system
def test_a_trajectory_is_the_same_whatever_is_beside_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: in a batch, alone, and over the bounds of the blocks that are computed at once."""
    of = replace(SYSTEMS[name], warm_up=1, substeps=2)
    together = of.states(7, 3, 2)
    monkeypatch.setattr("afresh.domains.field.systems.system.BLOCK", 2 * len(of.channels) * of.points**of.dimensions)
    assert np.array_equal(together, of.states(7, 3, 2))
    assert np.array_equal(together[2], of.states(7, 1, 2, first=2)[0])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(together[0], of.states(8, 1, 2)[0])


@each_system
def test_one_value_of_a_parameter_for_each_trajectory(name: str) -> None:
    """Gives what each gives alone."""
    of = replace(SYSTEMS[name], warm_up=0)
    for key, parameter in of.parameters.items():
        values = [parameter.default, parameter.default * 1.1]
        together = of.states(3, 2, 1, 32, {key: values})
        alone = [of.states(3, 1, 1, 32, {key: value}, first=number)[0] for number, value in enumerate(values)]
        assert np.array_equal(together, np.stack(alone)), key


@each_system
def test_a_finer_grid_starts_from_the_same_fields(name: str) -> None:
    of = SYSTEMS[name]
    coarse, fine = first_fields(of, 32, 2), first_fields(of, 64, 2)
    assert np.allclose(fine[(..., *[slice(None, None, 2)] * of.dimensions)], coarse, atol=1e-12)


@each_system
def test_conserved_quantities_of_the_defaults(name: str) -> None:
    of = replace(SYSTEMS[name], warm_up=2)
    states = of.states(0, 2, 10)
    for key, values in conserved_quantities(of, states).items():
        assert values.shape == (2, 11)
        assert (np.abs(values - values[:, :1]) < 1e-6).all(), key


@pytest.mark.parametrize(
    "given, words",
    [
        (
            {"points": 33},
            "33 points along each axis cannot be computed. Give an even number of at least 32, such as 256",
        ),
        ({"points": 16}, "16 points"),
    ],
)
def test_what_cannot_be_computed_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        SYSTEMS["burgers"].states(**{"seed": 0, "trajectories": 2, "steps": 1, **given})  # type: ignore[arg-type]


def test_an_unstable_solution_is_refused() -> None:
    of = replace(SYSTEMS["burgers"], step=2.0, substeps=1)
    with pytest.raises(UserError, match="left the finite numbers at 64 points"):
        of.states(0, 1, 30, 64, {"viscosity": 0.0})
