"""Samples of a flow given noisy observations of them: moment-matching posterior sampling (MMPS).

The observations are y = A(x) + n with n ~ N(0, S). Given x_t, the data x have a mean and a covariance that the velocity
v represents (Efron 2011, Tweedie's formula and selection bias; Meng et al. 2021, estimating high order gradients):

    D = E[x | x_t] = x_t + (1 - t) v,    V = Cov[x | x_t] = (1 - t)^2 / t dD/dx_t

Rozet et al. 2024, learning diffusion priors from observations by expectation maximization, eqs. 12 to 15, take x given
x_t for the Gaussian of these moments, so that y given x_t is one, too. The velocity given y is then

    v + (1 - t) / t (dD/dx_t)^T A^T u,    (S + A V A^T) u = y - A(D)

and the mean given y and x_t is D + V A^T u: the update of a Kalman filter (or optimal interpolation) with the
covariance that the flow has at x_t. For Gaussian data and a linear operator all of it is exact. The system is solved by
conjugate gradients, for which V is needed only in products with vectors, each a backward pass through the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Observations, Predict, UserError

TOLERANCE = 1e-3  # of the residual of the linear system, as a share of its right side


def condition_on(predict: Predict, observed: Observations, earliest: float) -> Predict:
    """The velocity of the data given observations, from that of all data.

    Before the time `earliest` the moments are those at `earliest`, since V at time 0 is a quotient of zeros. An
    operator that is not linear is linearised at D. Raises UserError for an operator that returns another shape than
    that of the values.
    """

    def inner(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        rank = [1] * (x.dim() - 1)
        now, late = t.view(-1, *rank), t.clamp_min(earliest)
        a = late.view(-1, *rank)
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            v, state = predict(at, late, cond, state)
            data = at + (1 - a) * v
            seen = observe(observed, data)
        values, variance = observed.values.to(seen), observed.std.to(seen).square()

        def covariance(u: Tensor) -> Tensor:
            """V A^T u, like x."""
            (back,) = torch.autograd.grad(seen, at, u, retain_graph=True)
            return (1 - a) ** 2 / a * back

        def system(u: Tensor) -> Tensor:
            """(S + A V A^T) u."""
            _, forward = torch.func.jvp(observed.operator, (data.detach(),), (covariance(u),))
            return variance * u + forward

        u = conjugate_gradients(system, (values - seen).detach(), observed.iterations)
        updated = data.detach() + covariance(u)
        return torch.where(now < 1, (updated - x) / (1 - now).clamp_min(1e-6), v.detach()), state

    return inner


def observe(observed: Observations, x: Tensor) -> Tensor:
    """What is observed of x (B, *shape) without noise, (B, M). Raises UserError for another shape than the values'."""
    seen = observed.operator(x)
    wanted = (len(x), observed.values.shape[-1])
    if tuple(seen.shape) != wanted:
        raise UserError(
            f"The operator of the observations must return {wanted[1]:,} numbers for each of {wanted[0]:,} examples, a "
            f"tensor of shape {wanted}. It returned {tuple(seen.shape)}."
        )
    return seen


def conjugate_gradients(system: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """u (B, M) with system(u) = right for each row, by at most so many iterations (Hestenes and Stiefel 1952).

    The system is to be symmetric and positive. With M iterations the solution is exact but for rounding. With fewer it
    is the best one in the Krylov space, in which the directions of large eigenvalues come first. A row ends where its
    residual is below TOLERANCE of its right side, or where the system is not positive along a direction, which happens
    with the derivatives of a network.
    """
    u, rest, direction = torch.zeros_like(right), right, right
    size = rest.square().sum(1, keepdim=True)
    enough = TOLERANCE**2 * size
    for _ in range(iterations):
        going = size > enough
        if not bool(going.any()):
            break
        image = system(direction)
        curvature = (direction * image).sum(1, keepdim=True)
        going = going & (curvature > 0)
        step = torch.where(going, size / torch.where(going, curvature, 1.0), 0.0)
        u, rest = u + step * direction, rest - step * image
        before, size = size, torch.where(going, rest.square().sum(1, keepdim=True), 0.0)
        direction = rest + torch.where(going, size / torch.where(going, before, 1.0), 0.0) * direction
    return u
