"""Solvers against flows with closed-form solutions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.rng import Rng
from afresh.engine.sampling.ode import EVALUATIONS, ORDER, SOLVERS, ab2, dpmpp, euler, heun, sde, times

NOBODY = Cond(3)
X0 = torch.tensor([[-1.7, 0.4], [0.1, 2.2], [1.0, -0.3]], dtype=torch.float64)  # (3, 2)


def velocity(f: Any) -> Predict:
    """A Predict from f(x (B, D), t (B, 1))."""
    return lambda x, t, cond, state: (f(x, t[:, None]), state)


def gaussian(std: float) -> Predict:
    """The exact velocity for data N(0, std^2): x(t) = d(t) x(0) with d^2 = (1 - t)^2 + t^2 std^2."""
    return velocity(lambda x, t: (t * std**2 - (1 - t)) / ((1 - t) ** 2 + (t * std) ** 2) * x)


def deviation(std: float, t: float) -> float:
    return math.hypot(1 - t, t * std)


def errors_of(solver: str, std: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Errors for 16, 32, ... 256 even steps from low to high."""
    out = []
    for n in STEPS:
        ts = low + (high - low) * times(int(n))
        x = SOLVERS[solver](gaussian(std), deviation(std, low) * X0, NOBODY, ts)
        out.append(float((x - deviation(std, high) * X0).norm()))
    return out


STEPS = np.array([16, 32, 64, 128, 256])


def slope(errors: list[float]) -> float:
    """The slope of log error against log step size."""
    return float(np.polyfit(np.log(1 / STEPS), np.log(errors), 1)[0])


@pytest.mark.parametrize("std", [0.5, 2.0])
@pytest.mark.parametrize("solver", ["euler", "heun", "ab2"])
def test_order_of_convergence(solver: str, std: float) -> None:
    assert slope(errors_of(solver, std)) == pytest.approx(ORDER[solver], abs=0.1)


@pytest.mark.parametrize("std", [0.5, 2.0])
@pytest.mark.parametrize("solver", ["dpmpp", "sde"])
def test_order_of_multistep_solvers(solver: str, std: float) -> None:
    """The order is two where lambda is finite. Near t = 0 and 1 even steps are never short in lambda, and the error
    falls as h^2 log(1/h): between 16 and 256 steps the slope is well above one."""
    assert slope(errors_of(solver, std, 0.1, 0.9)) == pytest.approx(ORDER[solver], abs=0.1)
    whole, first = errors_of(solver, std), errors_of("euler", std)
    assert slope(whole) > 1.4
    assert whole[-1] < first[-1] / 4


def test_every_solver_states_its_order() -> None:
    assert ORDER.keys() == SOLVERS.keys() == EVALUATIONS.keys()


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


@pytest.mark.parametrize("shift", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_adams_and_bashforth_are_exact_where_velocity_is_linear_in_time_on_any_grid(shift: float, steps: int) -> None:
    """dx/dt = 2 t, so that x(1) = x(0) + 1. The first step, from 0 to t_1, is Euler's and gains 0 instead of t_1^2; the
    others extrapolate a straight line, and are exact however uneven the grid is."""
    ts = times(steps, shift)
    found = ab2(velocity(lambda x, t: (2 * t).expand_as(x)), X0, NOBODY, ts)
    torch.testing.assert_close(found, X0 + 1 - float(ts[1]) ** 2, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("std", "shift"), [(0.5, 0.3), (2.0, 3.0)])
@pytest.mark.parametrize("solver", ["euler", "heun", "ab2"])
def test_order_of_convergence_on_an_uneven_grid(solver: str, std: float, shift: float) -> None:
    """With the other two pairs, the sign of the error of the second order changes between 16 and 256 steps."""
    errors = [
        float((SOLVERS[solver](gaussian(std), X0, NOBODY, times(int(n), shift)) - std * X0).norm()) for n in STEPS
    ]
    assert slope(errors) == pytest.approx(ORDER[solver], abs=0.1)


def test_one_step_by_hand() -> None:
    """dx/dt = x with h = 1: Euler gives 2 x, Heun 2.5 x. Two steps of h = 1/2 of Adams and Bashforth: 1.5 x, then
    1.5 x + (1.5 * 1.5 x - 0.5 x) / 2 = 2.375 x."""
    grow = velocity(lambda x, t: x)
    torch.testing.assert_close(euler(grow, X0, NOBODY, times(1)), 2 * X0)
    torch.testing.assert_close(heun(grow, X0, NOBODY, times(1)), 2.5 * X0)
    torch.testing.assert_close(ab2(grow, X0, NOBODY, times(2)), 2.375 * X0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_evaluations_and_times(solver: str) -> None:
    """The stated number of evaluations, at times within [0, 1], the same for all rows, with the condition passed on."""
    seen: list[Tensor] = []

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        assert cond is NOBODY and t.shape == (len(x),) and t.dtype == x.dtype
        seen.append(t)
        return -x, None

    SOLVERS[solver](predict, X0, NOBODY, times(5))
    assert len(seen) == 5 * EVALUATIONS[solver]
    assert float(torch.stack(seen).min()) == 0 and float(torch.stack(seen).max()) <= 1


def test_two_points_are_reached() -> None:
    """Data at -1 and +1: E[x_1 | x_t] = tanh(t x_t / (1 - t)^2), v = (E[x_1 | x_t] - x_t) / (1 - t). Euler's last
    step ends at E[x_1 | x_t], which is then one of the points; each receives half of the noise."""
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


def test_shifted_times_are_those_of_the_shifted_noise_level() -> None:
    """Esser et al. 2024, eq. 23: the noise level s becomes m s / (1 + (m - 1) s). By hand, m = 3 at the middle: 1/4."""
    even = 1 - times(8)
    torch.testing.assert_close(1 - times(8, shift=3.0), 3 * even / (1 + 2 * even))
    assert float(times(2, shift=3.0)[1]) == pytest.approx(0.25)
    assert torch.equal(times(7, shift=1.0), times(7))
    for m in (0.2, 5.0):
        ts = times(10, shift=m)
        assert float(ts[0]) == 0 and float(ts[-1]) == 1 and bool((ts.diff() > 0).all())
        assert (float(ts.diff()[0]) < float(ts.diff()[-1])) == (m > 1)


# --------------------------------------------------------------------------- DPM-Solver++ and its SDE


def point(place: float) -> Predict:
    return velocity(lambda x, t: (place - x) / (1 - t))


def keyed(seed: int, rows: int) -> Any:
    return lambda i, shape: Rng(seed).normal(f"z/{i}", torch.arange(rows), shape[1:])


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_a_point_mass_is_reached_exactly(steps: int, shift: float) -> None:
    ts = times(steps, shift=shift)
    torch.testing.assert_close(dpmpp(point(0.7), X0, NOBODY, ts), torch.full_like(X0, 0.7), rtol=0, atol=1e-14)
    for churn in (0.5, 1.0, 3.0):
        x = sde(point(0.7), X0, NOBODY, ts, keyed(1, 3), churn)
        torch.testing.assert_close(x, torch.full_like(X0, 0.7), rtol=0, atol=1e-14)


@pytest.mark.parametrize("churn", [0.0, 0.3, 1.0])
def test_steps_are_those_of_the_paper(churn: float) -> None:
    """Xue et al. 2023 with the correction of Lu et al. 2022b, algorithm 2, written with exponentials:
    x_b = s_b / s_a e^(-c h) x_a + a_b (1 - e^(-(1 + c) h)) (D + h / (2 h_before) (D - D_before)) + noise."""
    ts = 0.2 + 0.7 * times(5, shift=2.0)
    predict = gaussian(0.6)
    lam = torch.log(ts / (1 - ts))
    x, before = X0, None
    for i in range(5):
        a, b, h = float(ts[i]), float(ts[i + 1]), float(lam[i + 1] - lam[i])
        data = x + (1 - a) * predict(x, ts[i].expand(3), NOBODY, None)[0]
        ahead = data
        if before is not None:
            ahead = data + h / (2 * float(lam[i] - lam[i - 1])) * (data - before)
        z = keyed(4, 3)(i, (3, 2)).double()
        x = (
            (1 - b) / (1 - a) * math.exp(-churn * h) * x
            + b * (1 - math.exp(-(1 + churn) * h)) * ahead
            + (1 - b) * math.sqrt(1 - math.exp(-2 * churn * h)) * z
        )
        before = data
    torch.testing.assert_close(sde(predict, X0, NOBODY, ts, keyed(4, 3), churn), x, rtol=0, atol=1e-13)


def test_without_noise_or_churn_the_sde_is_the_ode() -> None:
    ts = times(9)
    ode = dpmpp(gaussian(0.5), X0, NOBODY, ts)
    assert torch.equal(sde(gaussian(0.5), X0, NOBODY, ts), ode)
    assert torch.equal(sde(gaussian(0.5), X0, NOBODY, ts, keyed(1, 3), churn=0.0), ode)
    assert not torch.equal(sde(gaussian(0.5), X0, NOBODY, ts, keyed(1, 3), churn=0.1), ode)


def moments(std: float, mean: float, steps: int, churn: float) -> tuple[float, float]:
    """Mean and standard deviation of the solver's result for N(mean, std^2), exactly, since x_1 is affine in the
    initial value and the noises, and row j only has the j-th of them, set to 1."""
    rows = torch.eye(steps + 2, dtype=torch.float64)

    def affine(x: Tensor, t: Tensor) -> Tensor:
        d2 = (1 - t) ** 2 + (t * std) ** 2
        return mean + (t * std**2 - (1 - t)) / d2 * (x - t * mean)

    x1 = sde(velocity(affine), rows[:, :1], Cond(steps + 2), times(steps), lambda i, s: rows[:, i + 1, None], churn)
    return float(x1[-1]), float((x1[:-1] - x1[-1]).norm())


@pytest.mark.parametrize("std", [0.5, 2.0])
@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0, 2.0])
def test_the_sde_keeps_a_gaussian(std: float, churn: float) -> None:
    """The mean 0.8 to within 1%, and the standard deviation to within 3% in 64 steps and 1% in 256."""
    for steps, tolerance in ((64, 0.03), (256, 0.01)):
        mean, deviation = moments(std, 0.8, steps, churn)
        assert mean == pytest.approx(0.8, rel=0.01)
        assert deviation == pytest.approx(std, rel=tolerance)


def test_noise_is_not_added_from_data_to_noise() -> None:
    with pytest.raises(ValueError, match="increasing"):
        sde(gaussian(0.5), X0, NOBODY, times(4).flip(0), keyed(1, 3))
