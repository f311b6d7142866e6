"""Likelihoods and inversion against flows whose densities are known in closed form."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.rng import Rng
from afresh.engine.sampling.density import (
    bits_per_dim,
    dequantise,
    divergence,
    invert,
    log_likelihood,
    rademacher,
)
from afresh.engine.sampling.ode import heun, times

X = torch.tensor([[-1.7, 0.4], [0.1, 2.2], [1.0, -0.3]], dtype=torch.float64)  # (3, 2)
NOBODY = Cond(3)


def velocity(f: Any) -> Predict:
    return lambda x, t, cond, state: (f(x, t[:, None]), state)


def gaussian(std: float) -> Predict:
    return velocity(lambda x, t: (t * std**2 - (1 - t)) / ((1 - t) ** 2 + (t * std) ** 2) * x)


def swirl(x: Tensor, t: Tensor) -> Tensor:
    """A velocity whose Jacobian is neither diagonal nor symmetric."""
    return torch.stack([torch.sin(x[:, 0] * x[:, 1]) + t[:, 0], x[:, 0] ** 2 * x[:, 1]], 1)


def log_normal(x: Tensor, std: float) -> Tensor:
    return (-0.5 * (x / std).square() - math.log(std) - 0.5 * math.log(2 * math.pi)).sum(1)


def two(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity of an even mixture of N(-1, 0.4^2) and N(1, 0.4^2), independent for each number."""
    d2 = (1 - t) ** 2 + (0.4 * t) ** 2
    sure = torch.tanh(t * x / d2)  # P(+1 | x_t) - P(-1 | x_t)
    return sure + (t * 0.16 - (1 - t)) / d2 * (x - t * sure)


def log_two(x: Tensor) -> Tensor:
    each = torch.stack([-0.5 * ((x - m) / 0.4) ** 2 for m in (-1, 1)])
    return (torch.logsumexp(each, 0) - math.log(2 * 0.4) - 0.5 * math.log(2 * math.pi)).sum(1)


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_the_error_on_a_gaussian_falls_with_the_order(std: float) -> None:
    steps = np.array([16, 32, 64, 128])
    errors = [
        float((log_likelihood(gaussian(std), X, NOBODY, times(int(n))) - log_normal(X, std)).norm()) for n in steps
    ]
    assert np.polyfit(np.log(1 / steps), np.log(errors), 1)[0] == pytest.approx(4, abs=0.2)


def test_a_mixture_has_its_density() -> None:
    found = log_likelihood(velocity(two), X, NOBODY, times(100))
    torch.testing.assert_close(found, log_two(X), rtol=0, atol=1e-5)


def test_a_density_adds_up_to_one() -> None:
    """On an even grid of a line; for such a smooth density the error of the trapezoidal rule is far below the
    tolerance."""
    line = torch.linspace(-4, 4, 401, dtype=torch.float64)[:, None]
    density = log_likelihood(velocity(two), line, Cond(401), times(40)).exp()
    assert float(density.sum() * 0.02) == pytest.approx(1, abs=1e-4)


def test_the_divergence_is_the_trace_of_the_jacobian() -> None:
    t = torch.tensor(0.3)
    v, found = divergence(velocity(swirl), X, t, NOBODY, None)
    torch.testing.assert_close(v, swirl(X, t.expand(3, 1)), rtol=0, atol=1e-6)
    torch.testing.assert_close(found, X[:, 1] * torch.cos(X[:, 0] * X[:, 1]) + X[:, 0] ** 2)


def test_the_estimate_has_no_bias() -> None:
    """The mean over all probes of +1 and -1 is the trace, while a single one is not."""
    every = torch.tensor(list(product((-1.0, 1.0), repeat=2)))[:, None].expand(4, 3, 2)
    t = torch.tensor(0.3)
    exact = divergence(velocity(swirl), X, t, NOBODY, None)[1]
    torch.testing.assert_close(divergence(velocity(swirl), X, t, NOBODY, every)[1], exact)
    assert not torch.allclose(divergence(velocity(swirl), X, t, NOBODY, every[:1])[1], exact, atol=0.1)


def test_probes_are_signs_keyed_by_the_example() -> None:
    rows = torch.arange(50)
    probes = rademacher(Rng(0), rows, (4, 5), 3)
    assert probes.shape == (3, 50, 4, 5) and torch.equal(probes.abs(), torch.ones_like(probes))
    assert torch.equal(rademacher(Rng(0), rows[7:9], (4, 5), 3), probes[:, 7:9])
    assert abs(float(probes.mean())) < 4 / math.sqrt(3000) and not torch.equal(probes[0], probes[1])


def test_one_probe_is_exact_if_all_directions_grow_equally() -> None:
    probes = rademacher(Rng(0), torch.arange(3), (2,), 1)
    by_probe = log_likelihood(gaussian(0.5), X, NOBODY, times(20), probes)
    torch.testing.assert_close(by_probe, log_likelihood(gaussian(0.5), X, NOBODY, times(20)), rtol=0, atol=1e-12)


def test_a_constant_velocity_shifts_the_normal_density() -> None:
    moved = velocity(lambda x, t: torch.full_like(x, 0.25))
    torch.testing.assert_close(log_likelihood(moved, X, NOBODY, times(3)), log_normal(X - 0.25, 1.0))


def test_no_gradient_is_left_behind() -> None:
    with torch.no_grad():
        assert not log_likelihood(gaussian(0.5), X, NOBODY, times(4)).requires_grad


# --------------------------------------------------------------------------- bits


def test_uniform_bytes_take_eight_bits() -> None:
    """The density over x = 2 / 255 byte - 1, dequantised, is 1 / (256 scale) for each value."""
    scale, dims = 2 / 255, 48
    nats = torch.full((3,), -dims * math.log(256 * scale), dtype=torch.float64)
    torch.testing.assert_close(bits_per_dim(nats, dims, scale), torch.full((3,), 8.0, dtype=torch.float64))


def test_bits_do_not_depend_on_the_units() -> None:
    """The same density of x and of 10 x."""
    nats = torch.tensor([-3.0, 1.5], dtype=torch.float64)
    wider = bits_per_dim(nats - 7 * math.log(10), 7, 10 * 0.01)
    torch.testing.assert_close(bits_per_dim(nats, 7, 0.01), wider)


def test_dequantisation_stays_in_the_bin_and_fills_it() -> None:
    rows, scale = torch.arange(200), 2 / 255
    off = (dequantise(torch.zeros(200, 4, 4), scale, Rng(0), rows) / scale).flatten()
    assert float(off.min()) >= -0.5 and float(off.max()) < 0.5
    assert float(off.mean()) == pytest.approx(0, abs=4 / math.sqrt(12 * len(off)))
    assert float(off.std()) == pytest.approx(1 / math.sqrt(12), rel=0.03)


# --------------------------------------------------------------------------- inversion


def test_inversion_finds_the_noise_of_a_gaussian() -> None:
    torch.testing.assert_close(invert(gaussian(0.5), 0.5 * X, NOBODY, times(200)), X, rtol=0, atol=1e-4)


def test_each_round_reduces_the_error_of_inversion() -> None:
    """Without rounds the error is of order 2, and each round reduces it."""
    ts = times(10)

    def missed(rounds: int) -> float:
        z = invert(velocity(two), X, NOBODY, ts, rounds)
        return float((heun(velocity(two), z, NOBODY, ts) - X).norm())

    plain = missed(0)
    assert 1e-3 < plain < 0.3
    assert missed(1) < plain / 3 and missed(8) < 1e-4 * plain


def test_rounds_never_increase_the_error_where_a_step_folds() -> None:
    """Near a point mass the last step forgets its start: no point before it leads to x."""
    steep = velocity(lambda x, t: (0.7 - x) / (1.02 - t))
    ts = times(5)

    def missed(rounds: int) -> Tensor:
        return (heun(steep, invert(steep, X, NOBODY, ts, rounds), NOBODY, ts) - X).norm(dim=1)

    assert bool((missed(3) <= missed(0) + 1e-9).all()) and bool(missed(3).isfinite().all())
