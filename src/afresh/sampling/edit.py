"""Changing examples that exist: how much, where, and towards what. Wrappers of a `Predict`, and a loop over a solver.

Nothing here needs a network of its own, nor do solvers learn of it: what is kept and what is wanted change the
velocity that a solver follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Edit, Predict, UserError
from afresh.sampling.ode import Noise, Solver, times

FARTHEST = 4.0  # times as far as for data without correlations: beyond, a network's derivatives are errors
SEGMENTS = 10  # parts of the way that `resample` goes more than once


def edit(
    predict: Predict,
    task: Edit,
    noise: Tensor,
    cond: Cond,
    solver: Callable[[int], Solver],
    steps: int,
    *,
    shift: float = 1.0,
    std: float = 1.0,
    resample: int = 1,
    fresh: Noise | None = None,
) -> Tensor:
    """x (B, *shape) from `noise`, what `task` says being kept or wanted.

    - `start` and `strength` s: the way begins at t = 1 - s, at (1 - t) noise + t start (SDEdit, Meng et al. 2022,
      algorithm 1), and takes the share s of the `steps`. Strength 0 gives back the start.
    - `keep`: see `held`; in the end these values are the start's, bit for bit.
    - `energy`: see `tilted`; `std` is the data's standard deviation.

    `solver(k)` solves the k-th stretch of the way; there are several with `resample` r above 1: then each tenth of the
    way is gone r times, with noise from `fresh` between, so that what is new can agree with what is kept (RePaint,
    Lugmayr et al. 2022, algorithm 1). With none of these it is the solver itself, from the same noise.

    Raises UserError for a start, a keep or an energy of another shape, a strength outside [0, 1], a negative weight,
    and for what needs a start and has none.
    """
    check(task, tuple(noise.shape))
    start, strength = task.start, task.strength if task.start is not None else 1.0
    if start is not None and strength == 0:
        return start.clone()
    ts = (1 - strength) + strength * times(max(1, round(strength * steps)), noise.device, shift)
    first = float(ts[0])
    x = noise if start is None else (1 - first) * noise + first * start
    steered = predict
    if start is not None and task.keep is not None:
        steered = held(steered, task.keep, start)
    if task.energy is not None:
        steered = tilted(steered, task.energy, task.weight, std)
        if start is not None and task.keep is not None:
            steered = held(steered, task.keep, start)
    for k, (stretch, back) in enumerate(stretches(ts, resample)):
        x = solver(k)(steered, x, cond, stretch)
        if back:
            assert fresh is not None, "going back needs fresh noise"
            x = noised(x, float(stretch[-1]), float(stretch[0]), fresh(k, tuple(x.shape)).to(x))
    return x if start is None or task.keep is None else torch.where(task.keep, start, x)


def check(task: Edit, shape: tuple[int, ...]) -> None:
    """Raises UserError for an edit that cannot be of `shape`."""
    for name, tensor in (("start", task.start), ("keep", task.keep)):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise UserError(f"The {name} of an edit must have shape {shape}. Given: {tuple(tensor.shape)}.")
    if task.keep is not None and task.keep.dtype != torch.bool:
        raise UserError(f"keep must hold true and false, true where values stay. Given: {task.keep.dtype}.")
    if not 0 <= task.strength <= 1:
        raise UserError(f"The strength of an edit is from 0 (nothing) to 1 (everything). Given: {task.strength}.")
    if task.start is None and (task.keep is not None or task.strength != 1):
        raise UserError("A strength and values to keep are of examples that exist: give the edit a start.")
    if not (math.isfinite(task.weight) and task.weight >= 0):
        raise UserError(f"The weight of an energy is a number from 0. Given: {task.weight}.")


def held(predict: Predict, keep: Tensor, start: Tensor) -> Predict:
    """The velocity whose predicted data is the start wherever `keep` is true: v = (start - x) / (1 - t).

    Along it kept values stay on the straight line from their own noise to the start, so that the network sees at every
    time what the path's definition says (Lugmayr et al. 2022, eq. 8a, with the same noise all along).
    """

    def inner(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        v, state = predict(x, t, cond, state)
        left = 1 - t.view(-1, *[1] * (x.dim() - 1))
        known = torch.where(left > 0, (start - x) / left.clamp_min(1e-6), 0.0)  # at t = 1 nothing is left to go
        return torch.where(keep, known, v), state

    return inner


def tilted(predict: Predict, energy: Callable[[Tensor], Tensor], weight: float, std: float) -> Predict:
    """The velocity for the density p(x) exp(-weight energy(x)), up to a constant.

    The score of what is wanted is taken at the predicted data D(x_t), through the network (DPS, Chung et al. 2023,
    eqs. 10 and 11), and moves the velocity by (1 - t) / t times it. DPS divides by the root of the energy so that steps
    stay bounded; here they are bounded by what D does not yet know of x_1, its variance r^2 for data of variance
    std^2 (Song et al. 2023):

        v - (1 - t) / t (dD/dx)^T g w / (1 + w r^2 k),    r^2 = (1 - t)^2 std^2 / ((1 - t)^2 + t^2 std^2)

    with g the energy's gradient at D and k >= 0 its curvature along g. For Gaussian data this is exact for energies
    that are linear, or quadratic with one curvature (agreement with known values, with means of blocks); with
    sum (A x - y)^2 the weight 1 / (2 s^2) says that y has noise of deviation s.
    """

    def inner(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        a = t.view(-1, *[1] * (x.dim() - 1))
        unknown = (1 - a) ** 2 * std**2 / ((1 - a) ** 2 + a**2 * std**2)
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            v, state = predict(at, t, cond, state)
            data = at + (1 - a) * v
            slope, curvature = descent(energy, data.detach(), 0.01 * std)
            pull = weight * slope / (1 + weight * unknown * curvature)
            (back,) = torch.autograd.grad(data, at, pull)
        # At t = 0 dD/dx / t is the data's covariance, which no network knows there: std^2 is what is known of it.
        moved = torch.where(a > 0, (1 - a) / a.clamp_min(1e-6) * back, std**2 * pull)
        plain = unknown / (1 - a).clamp_min(1e-6) * pull  # what it would be if all that is unknown were alike
        moved = moved * bounded(moved, FARTHEST * plain)
        return v.detach() - moved, state

    return inner


def bounded(x: Tensor, most: Tensor) -> Tensor:
    """The factor (B, 1, ...), at most 1, that keeps each row's norm below that of `most`."""
    rank = [1] * (x.dim() - 1)
    sizes = [v.flatten(1).norm(dim=1).view(-1, *rank) for v in (x, most)]
    return (sizes[1] / sizes[0].clamp_min(1e-12)).clamp_max(1)


def descent(energy: Callable[[Tensor], Tensor], x: Tensor, far: float) -> tuple[Tensor, Tensor]:
    """The gradient of an energy at x (B, *shape), and along it the curvature, where positive, (B, 1, ...).

    The curvature is the gradient's change over a way of root mean square `far`: what is convex in the large counts,
    and no second derivative is needed. Raises UserError for an energy that is not (B,) or has no gradient.
    """
    slope = gradient(energy, x)
    rank = [1] * (x.dim() - 1)
    size = slope.flatten(1).norm(dim=1).view(-1, *rank)
    unit = slope / size.clamp_min(1e-12)
    way = far * math.sqrt(x[0].numel())
    change = (gradient(energy, x + way * unit) - slope) * unit
    return slope, (change.flatten(1).sum(1).view(-1, *rank) / way).clamp_min(0)


def gradient(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of a sum over rows, each of which depends on its own example alone."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = energy(x)
        if tuple(value.shape) != (len(x),):
            raise UserError(f"An energy gives one number for each of {len(x)} examples. Given: {tuple(value.shape)}.")
        if not value.requires_grad:
            raise UserError("An energy must be differentiable: made of torch operations on x, without detach or item.")
        return torch.autograd.grad(value.sum(), x)[0]


def stretches(ts: Tensor, resample: int) -> list[tuple[Tensor, bool]]:
    """The grids to solve one after the other, and whether to go back to the beginning of each after it.

    From pure noise nothing is gained by going back: the first stretch is gone once.
    """
    if resample == 1:
        return [(ts, False)]
    length = max(1, math.ceil((len(ts) - 1) / SEGMENTS))
    out = []
    for i in range(0, len(ts) - 1, length):
        stretch = ts[i : i + length + 1]
        again = resample - 1 if float(stretch[0]) > 0 else 0
        out += [(stretch, True)] * again + [(stretch, False)]
    return out


def noised(x: Tensor, b: float, a: float, z: Tensor) -> Tensor:
    """x at time b taken back to a < b by the noise that the path adds: what x_a is given x_b."""
    return a / b * x + math.sqrt((1 - a) ** 2 - (a / b * (1 - b)) ** 2) * z
