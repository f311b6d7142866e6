"""The posterior of a Gaussian under linear observations, whose mean and covariance are known in closed form.

The exact velocity of a Gaussian takes the place of a network, so that samples are an affine function of the noise: its
values at zero and at the unit vectors are the mean and a root of the covariance, without any random number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Edit, Observations, UserError
from afresh.engine.sampling.edit import edit
from afresh.engine.sampling.energy import blocks
from afresh.engine.sampling.ode import SOLVERS, sde
from afresh.engine.sampling.posterior import solve

POINTS = 12
PLACES = torch.arange(POINTS, dtype=torch.float64)
UNIT = torch.eye(POINTS, dtype=torch.float64)
AROUND = (PLACES[:, None] - PLACES).abs()
COVARIANCE = torch.exp(-0.5 * (torch.minimum(AROUND, POINTS - AROUND) / 2) ** 2) + 0.02 * UNIT
MEAN = torch.sin(2 * math.pi * PLACES / POINTS)
SEEN = [1, 2, 5, 10]
OPERATORS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "points": (lambda x: x[:, 0, SEEN], 0.1),
    "means of blocks": (lambda x: blocks(x, 3).flatten(1), 0.05),
    "whole fields": (lambda x: x.flatten(1), 0.5),
}


def prior(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """The exact velocity of N(MEAN, COVARIANCE)."""
    a = float(t[0])
    gain = (a * COVARIANCE - (1 - a) * UNIT) @ torch.linalg.inv(a**2 * COVARIANCE + (1 - a) ** 2 * UNIT)
    return (MEAN + (x.flatten(1) - a * MEAN) @ gain.T).view_as(x), state


def observed(name: str, iterations: int = POINTS) -> Observations:
    operator, std = OPERATORS[name]
    truth = (MEAN + torch.linalg.cholesky(COVARIANCE) @ torch.cos(3 * PLACES)).view(1, 1, POINTS)
    values = operator(truth)[0] + std * torch.sin(5 * PLACES[: operator(truth).shape[1]])
    return Observations(operator, values, torch.full_like(values, std), iterations)


def exact(name: str) -> tuple[Tensor, Tensor]:
    task = observed(name)
    matrix = task.operator(UNIT[:, None]).T
    gain = COVARIANCE @ matrix.T @ torch.linalg.inv(matrix @ COVARIANCE @ matrix.T + task.std.square().diag())
    return MEAN + gain @ (task.values - matrix @ MEAN), COVARIANCE - gain @ matrix @ COVARIANCE


def moments(task: Edit, steps: int, solver: str = "heun") -> tuple[Tensor, Tensor]:
    """The mean and covariance of edits, if they are affine in the noise."""
    noise = torch.cat([torch.zeros(1, POINTS, dtype=torch.float64), UNIT]).view(-1, 1, POINTS)
    x = edit(prior, task, noise, Cond(len(noise)), lambda k: SOLVERS[solver], steps).flatten(1)
    root = x[1:] - x[0]
    return x[0], root.T @ root


def errors(task: Edit, name: str, steps: int, solver: str = "heun") -> tuple[float, float]:
    """The distance of the mean, as a share of how far the observations move it, and of the covariance, as a share of
    the exact one."""
    (mean, covariance), (true_mean, true_covariance) = moments(task, steps, solver), exact(name)
    return (
        float((mean - true_mean).norm() / (true_mean - MEAN).norm()),
        float((covariance - true_covariance).norm() / true_covariance.norm()),
    )


@pytest.mark.parametrize("solver", ["ab2", "heun", "dpmpp"])
@pytest.mark.parametrize("name", OPERATORS)
def test_mean_and_covariance_are_those_of_the_posterior(name: str, solver: str) -> None:
    mean, covariance = errors(Edit(observations=observed(name)), name, 40, solver)
    assert mean < 1e-4 and covariance < 0.02


@pytest.mark.parametrize("name", OPERATORS)
def test_the_error_of_the_covariance_falls_with_the_square_of_the_step(name: str) -> None:
    coarse, fine = (errors(Edit(observations=observed(name)), name, steps)[1] for steps in (20, 40))
    assert fine < coarse / 3


def test_the_sde_has_the_same_posterior() -> None:
    """Each step renews noise, so that samples are no function of the first noise alone: 2,000 of them."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def solver(predict: Any, x: Tensor, cond: Cond, ts: Tensor) -> Tensor:
        return sde(predict, x, cond, ts, noise=lambda i, shape: draw(shape))

    task = Edit(observations=observed("points"))
    x = edit(prior, task, draw((2000, 1, POINTS)), Cond(2000), lambda k: solver, 40).flatten(1)
    mean, covariance = exact("points")
    assert float((x.mean(0) - mean).abs().max()) < 0.07
    assert float((torch.cov(x.T) - covariance).norm() / covariance.norm()) < 0.08


@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_far_nearer_than_the_gradient_of_the_energy(name: str) -> None:
    """Where observations and covariance are not of one curvature, the gradient does not solve the linear system."""
    task = observed(name)
    weight = 1 / (2 * float(task.std[0]) ** 2)
    energy = Edit(energy=lambda x: (task.operator(x) - task.values).square().sum(1), weight=weight)
    noise = torch.randn(500, 1, POINTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = edit(prior, energy, noise, Cond(500), lambda k: SOLVERS["heun"], 40).flatten(1)
    mean, _ = exact(name)
    theirs = float((drawn.mean(0) - mean).norm() / (mean - MEAN).norm())
    ours, _ = errors(Edit(observations=task), name, 40)
    assert theirs > 0.05 and ours < theirs / 100


def test_few_products_are_less_exact() -> None:
    found = [errors(Edit(observations=observed("points", i)), "points", 40)[0] for i in (1, 2, 4)]
    assert found[0] > 1.5 * found[1] > 100 * found[2]


def test_without_any_information_it_is_the_prior() -> None:
    task = observed("points")
    blind = Edit(observations=Observations(task.operator, task.values, task.std * 1e9))
    for got, wanted in zip(moments(blind, 40), moments(Edit(), 40), strict=True):
        torch.testing.assert_close(got, wanted, atol=0.02, rtol=0)


def test_an_operator_that_is_not_linear_is_linearised() -> None:
    """The logarithm of a value that is known almost exactly is as good as the value."""

    def through_log(x: Tensor) -> Tensor:
        return (10 + x[:, 0, SEEN]).log()

    task = observed("points")
    std = torch.full_like(task.values, 1e-3)
    logs = Observations(through_log, (10 + task.values).log(), std / 10, 4)
    plain = Observations(task.operator, task.values, std, 4)
    (a, _), (b, _) = moments(Edit(observations=logs), 40), moments(Edit(observations=plain), 40)
    torch.testing.assert_close(a, b, atol=0.02, rtol=0)


def test_values_that_are_kept_are_kept() -> None:
    noise = torch.randn(5, 1, POINTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = MEAN.expand(5, 1, POINTS).clone()
    keep = torch.zeros(5, 1, POINTS, dtype=torch.bool)
    keep[..., :4] = True
    task = Edit(start, keep=keep, observations=observed("whole fields"))
    x = edit(prior, task, noise, Cond(5), lambda k: SOLVERS["ab2"], 20)
    assert torch.equal(x[keep], start[keep])


# --------------------------------------------------------------------------- the linear system


def test_the_system_is_solved_in_as_many_products_as_it_has_rows() -> None:
    root = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance, right = 10 * root @ root.mT, torch.ones(2, 6, dtype=torch.float64)
    u = solve(lambda v: (covariance @ v[..., None])[..., 0], right, 6)
    torch.testing.assert_close(u + (covariance @ u[..., None])[..., 0], right)


def test_what_is_no_covariance_cannot_make_the_solution_long() -> None:
    """1 + eigenvalue is nearly zero along a direction of this matrix, as a network's derivatives may have it."""
    matrix = torch.tensor([[-1.0001, 0.3], [-0.3, 2.0]], dtype=torch.float64)
    right = torch.tensor([[1.0, 0.1], [0.0, 0.0]], dtype=torch.float64)
    u = solve(lambda v: v @ matrix.T, right, 2)
    assert bool((u.norm(dim=1) <= right.norm(dim=1) + 1e-12).all()) and bool(torch.isfinite(u).all())


def test_products_end_where_the_system_is_solved() -> None:
    asked: list[int] = []

    def spread(v: Tensor) -> Tensor:
        asked.append(1)
        return 3 * v

    u = solve(spread, torch.ones(4, 50), 50)
    torch.testing.assert_close(u, torch.full((4, 50), 0.25))
    assert len(asked) == 1


# --------------------------------------------------------------------------- bad input


def test_an_operator_of_another_shape_is_refused() -> None:
    task = Observations(lambda x: x[:, 0, :3], torch.zeros(4), torch.ones(4))
    with pytest.raises(UserError, match=r"4 numbers for each of 13 examples.*\(13, 3\)"):
        moments(Edit(observations=task), 4)


def test_an_energy_beside_observations_is_refused() -> None:
    with pytest.raises(UserError, match="not both"):
        moments(Edit(energy=lambda x: x.flatten(1).sum(1), observations=observed("points")), 4)
