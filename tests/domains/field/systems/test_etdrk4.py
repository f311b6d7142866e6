"""The coefficients are those of the formulas; the method is exact where it is linear, and of fourth order elsewhere."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from afresh.domains.field.systems.equation import advance, coefficients

STEP = 0.3


@pytest.mark.parametrize("rate", [0.0, 1e-9, -1e-3, -0.5, -40.0, -1e5, 2.0, 1e-5j, 3.0j, -2 + 50j])
def test_coefficients_have_no_cancellation(rate: complex) -> None:
    """Against the power series of the formulas of Cox and Matthews, or the formulas themselves at 60 digits."""
    of = coefficients(np.array([rate if isinstance(rate, complex) else float(rate)]), STEP)
    with mpmath.workdps(60):
        z = mpmath.mpmathify(rate) * mpmath.mpf(STEP)

        def phi(order: int) -> mpmath.mpc:
            return mpmath.hyp1f1(1, order + 1, z) / mpmath.factorial(order)

        expected = {
            "whole": mpmath.exp(z),
            "half": mpmath.exp(z / 2),
            "stage": STEP * mpmath.hyp1f1(1, 2, z / 2) / 2,
            "first": STEP * (phi(1) - 3 * phi(2) + 4 * phi(3)),
            "middle": STEP * (2 * phi(2) - 4 * phi(3)),
            "last": STEP * (4 * phi(3) - phi(2)),
        }
    for name, value in expected.items():
        assert abs(getattr(of, name)[0] - complex(value)) < 2e-14, name


def test_linear_decay_is_exact_for_any_step() -> None:
    linear = np.array([-1.0, -30.0, -1e4])
    after = advance(np.ones(3), coefficients(linear, 2.0), np.zeros_like)
    assert np.allclose(after, np.exp(2.0 * linear), rtol=1e-14, atol=0)


@pytest.mark.parametrize("rate", [-1.0, 0.0, 1j])
def test_order_four_for_a_nonlinear_equation(rate: complex) -> None:
    """du/dt = rate u - u^2, whose solution is known (Bernoulli)."""
    factor = np.exp(rate)
    exact = factor / (1 + ((factor - 1) / rate if rate else 1))
    errors = []
    for steps in (20, 40):
        u = np.array([1.0 + 0j])
        of = coefficients(np.array([rate + 0j]), 1 / steps)
        for _ in range(steps):
            u = advance(u, of, lambda v: -(v**2))
        errors.append(abs(u[0] - exact))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.15)
