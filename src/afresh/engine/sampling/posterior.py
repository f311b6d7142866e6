"""Samples of a flow given noisy observations of them: moment-matching posterior sampling (MMPS).

The observations are y = A(x) + n with n ~ N(0, S). Given x_t, the data x have a mean and a covariance that the velocity
v represents (Efron 2011, Tweedie's formula and selection bias; Meng et al. 2021, estimating high order gradients):

    D = E[x | x_t] = x_t + (1 - t) v,    V = Cov[x | x_t] = (1 - t)^2 / t dD/dx_t

Rozet et al. 2024, learning diffusion priors from observations by expectation maximization, take x given x_t for the
Gaussian of these moments, so that y given x_t is one, too. The velocity given y is then

    v + (1 - t) / t (dD/dx_t)^T A^T u,    (S + A V A^T) u = y - A(D)

and the mean given y and x_t is D + V A^T u: the update of a Kalman filter (or optimal interpolation) with the
covariance that the flow has at x_t. For Gaussian data and a linear operator all of it is exact. The system is solved in
a Krylov space (`solve`), for which V is needed only in products with vectors, each a backward pass through the network.
With fewer products than observations, the directions in which x is known best already are not corrected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Observations, Predict, UserError

TOLERANCE = 1e-3  # of the residual of the linear system, as a share of its right side
TINY = 1e-12


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
        with torch.autocast(x.device.type, enabled=False), torch.enable_grad():
            at = x.detach().requires_grad_()
            v, state = predict(at, late, cond, state)
            data = at + (1 - a) * v
            seen = observe(observed, data)
            std = observed.std.to(seen)

            def covariance(u: Tensor) -> Tensor:
                """V A^T u, like x."""
                (back,) = torch.autograd.grad(seen, at, u, retain_graph=True)
                return (1 - a) ** 2 / a * back

            def spread(u: Tensor) -> Tensor:
                """S^(-1/2) A V A^T S^(-1/2) u."""
                forward = torch.func.jvp(observed.operator, (data.detach(),), (covariance(u / std),))[1]
                return forward / std

            left = ((observed.values.to(seen) - seen) / std).detach()
            updated = data.detach() + covariance(solve(spread, left, observed.iterations) / std)
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


def solve(spread: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """u (B, M) with u + spread(u) = right for each row, where `spread` is a covariance, by at most so many products.

    As conjugate gradients do, in exact arithmetic: the solution within the Krylov space of the right side is sought,
    so that M iterations are exact, and fewer find the directions of large variance first. The derivatives of a network
    are only nearly those of a covariance: a basis of the space is therefore kept orthonormal (Arnoldi 1951), and in it
    the matrix is made symmetric, and its negative eigenvalues zero. So u is never longer than the right side.
    """
    length = right.norm(dim=1, keepdim=True)
    basis, images = [right / length.clamp_min(TINY)], list[Tensor]()
    for k in range(iterations):
        image = spread(basis[k])
        images.append(image)
        q = torch.stack(basis, 1)  # (B, k + 1, M)
        inner = q @ torch.stack(images, 2)
        values, vectors = torch.linalg.eigh((inner + inner.mT) / 2)
        weights = (
            vectors @ (vectors[:, 0, :] / (1 + values.clamp_min(0)))[..., None]
        ).mT  # of the basis, (B, 1, k + 1)
        for _ in range(2):  # once is not orthogonal to working precision
            image = image - (q.mT @ (q @ image[..., None]))[..., 0]
        size = image.norm(dim=1, keepdim=True)
        if bool((size * weights[:, 0, -1:].abs() <= TOLERANCE).all()):
            break
        basis.append(torch.where(size > TINY, image / size.clamp_min(TINY), 0.0))
    return length * (weights @ q)[:, 0]
