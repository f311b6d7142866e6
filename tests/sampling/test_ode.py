"""Solvers against flows that can be solved by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.sampling.ode import ORDER, SOLVERS, euler, heun, times

NOBODY = Cond(3)
X0 = torch.tensor([[-1.7, 0.4], [0.1, 2.2], [1.0, -0.3]], dtype=torch.float64)  # (3, 2)


def velocity(f: Any) -> Predict:
    """A Predict from f(x (B, D), t (B, 1))."""
    return lambda x, t, cond, state: (f(x, t[:, None]), state)


def gaussian(std: float) -> Predict:
    """The exact velocity for data N(0, std^2): x(t) = d(t) x(0) with d^2 = (1 - t)^2 + t^2 std^2."""
    return velocity(lambda x, t: (t * std**2 - (1 - t)) / ((1 - t) ** 2 + (t * std) ** 2) * x)


def order_of(solver: str, std: float) -> float:
    """Slope of log error against log step size."""
    steps = np.array([16, 32, 64, 128, 256])
    errors = []
    for n in steps:
        x1 = SOLVERS[solver](gaussian(std), X0, NOBODY, times(int(n)))
        errors.append(float((x1 - std * X0).norm()))
    return float(np.polyfit(np.log(1 / steps), np.log(errors), 1)[0])


@pytest.mark.parametrize("std", [0.5, 2.0])
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_order_of_convergence(solver: str, std: float) -> None:
    assert order_of(solver, std) == pytest.approx(ORDER[solver], abs=0.1)


def test_every_solver_states_its_order() -> None:
    assert ORDER.keys() == SOLVERS.keys()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("steps", [1, 7])
def test_a_constant_velocity_is_exact_in_any_number_of_steps(solver: str, steps: int) -> None:
    x1 = SOLVERS[solver](velocity(lambda x, t: torch.full_like(x, 0.25)), X0, NOBODY, times(steps))
    torch.testing.assert_close(x1, X0 + 0.25, rtol=0, atol=1e-14)


def test_heun_is_exact_where_velocity_is_linear_in_time_and_euler_is_not() -> None:
    predict = velocity(lambda x, t: (2 * t).expand_as(x))
    torch.testing.assert_close(heun(predict, X0, NOBODY, times(3)), X0 + 1, rtol=0, atol=1e-14)
    # Euler takes the left ends: sum of 2 t h over t = 0, 1/3, 2/3 is 2/3.
    torch.testing.assert_close(euler(predict, X0, NOBODY, times(3)), X0 + 2 / 3, rtol=0, atol=1e-14)


def test_one_step_by_hand() -> None:
    """dx/dt = x with h = 1: Euler gives 2 x, Heun 2.5 x."""
    grow = velocity(lambda x, t: x)
    torch.testing.assert_close(euler(grow, X0, NOBODY, times(1)), 2 * X0)
    torch.testing.assert_close(heun(grow, X0, NOBODY, times(1)), 2.5 * X0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_evaluations_and_times(solver: str) -> None:
    """As many evaluations as the order says, at times within [0, 1], one time a row, the condition handed on."""
    seen: list[Tensor] = []

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        assert cond is NOBODY and t.shape == (len(x),) and t.dtype == x.dtype
        seen.append(t)
        return -x, None

    SOLVERS[solver](predict, X0, NOBODY, times(5))
    assert len(seen) == 5 * ORDER[solver]
    assert float(torch.stack(seen).min()) == 0 and float(torch.stack(seen).max()) <= 1


def test_two_points_are_reached() -> None:
    """Data at -1 and +1: E[x_1 | x_t] = tanh(t x_t / (1 - t)^2), v = (E[x_1 | x_t] - x_t) / (1 - t).

    Euler's last step lands on E[x_1 | x_t], which by then is one of the points; each gets half of the noise.
    """
    z = torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
    exact = velocity(lambda x, t: (torch.tanh(t * x / (1 - t) ** 2) - x) / (1 - t))
    x1 = euler(exact, z, Cond(len(z)), times(100))
    sure = z.abs() > 0.05  # the middle is a watershed
    torch.testing.assert_close(x1[sure], z[sure].sign(), rtol=0, atol=1e-3)


def test_times_are_an_even_grid() -> None:
    ts = times(10)
    assert len(ts) == 11 and ts.dtype == torch.float64 and float(ts[0]) == 0 and float(ts[-1]) == 1
    torch.testing.assert_close(ts.diff(), torch.full((10,), 0.1, dtype=torch.float64))
    assert math.isclose(float(times(1)[1]), 1)
