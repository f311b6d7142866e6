"""Edits of existing examples: how much may change, where, and toward which energy.

Edits need no network of their own and are independent of the solver, because values to keep and energies are wrappers
of a `Predict` that modify its velocity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Edit, Modules, Predict, Space, UserError
from afresh.core.rng import Rng
from afresh.core.solver_progress import part_of
from afresh.engine.sampling.ode import SOLVERS, Noise, Solver, times
from afresh.engine.sampling.posterior import condition_on

# Bound on the change of a velocity by an energy, relative to the change for data without correlations: larger changes
# come from errors of the network's derivatives.
FARTHEST = 4.0
SEGMENTS = 10  # number of time intervals that `resample` repeats


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
    """Apply the edit `task`, starting from `noise`. Returns x (B, *shape).

    - `start` and `strength` s: sampling begins at t = 1 - s with (1 - t) noise + t start (SDEdit, Meng et al. 2022,
      algorithm 1), and takes the share s of the `steps`. Strength 0 returns the start.
    - `keep`: see `hold_values`. In the result these values equal those of the start, bit for bit.
    - `energy`: see `tilt_by_energy`. `std` is the standard deviation of the data.
    - `observations`: see `sampling.posterior.condition_on`, whose moments begin at the end of the first step.

    `solver(k)` solves the k-th interval of time. There are several if `resample` r is above 1: each tenth of the time
    is then solved r times, with noise of `fresh` added in between, so that new values can agree with those that are
    kept (RePaint, Lugmayr et al. 2022, algorithm 1). For an empty task the result is that of the solver, from the same
    noise.

    Raises UserError for a start, keep or energy of another shape, a strength outside [0, 1], a negative weight, and if
    a start is missing, and as `condition_on` does.
    """
    check(task, tuple(noise.shape))
    start, strength = task.start, task.strength if task.start is not None else 1.0
    if start is not None and strength == 0:
        return start.clone()
    ts = (1 - strength) + strength * times(max(1, round(strength * steps)), shift)
    first = float(ts[0])
    x = noise if start is None else (1 - first) * noise + first * start
    modified = predict
    if start is not None and task.keep is not None:
        modified = hold_values(modified, task.keep, start)
    if task.energy is not None or task.observations is not None:
        if task.energy is not None:
            modified = tilt_by_energy(modified, task.energy, task.weight, std)
        if task.observations is not None:
            modified = condition_on(modified, task.observations, float(ts[ts > 0][0]))
        if start is not None and task.keep is not None:
            modified = hold_values(modified, task.keep, start)
    grids = intervals(ts, resample)
    before, total = 0, sum(len(grid) - 1 for grid, _ in grids)
    for k, (grid, again) in enumerate(grids):
        with part_of(before, total):
            x = solver(k)(modified, x, cond, grid)
        before += len(grid) - 1
        if again:
            assert fresh is not None, "resampling needs fresh noise"
            x = add_noise(x, float(grid[-1]), float(grid[0]), fresh(k, tuple(x.shape)).to(x))
    return x if start is None or task.keep is None else torch.where(task.keep, start, x)


def stateless(velocity: Callable[[Tensor, Any, Cond], Tensor]) -> Predict:
    """A velocity of (x, t, cond) as a Predict."""
    return lambda x, t, cond, state: (velocity(x, t, cond), state)


def edit_under(guided: Callable[[Modules, Any, Any], Predict]) -> Callable[..., Tensor]:
    """The edit of a family whose velocity under a config and settings is `guided`: `edit` at even times by the solver
    of the settings, with noise that is keyed by the index as that of samples."""

    @torch.no_grad()
    def edited(
        modules: Modules, config: Any, space: Space, task: Edit, cond: Cond, rng: Rng, index: Tensor, settings: Any
    ) -> Tensor:
        return edit(
            guided(modules, config, settings),
            task,
            rng.normal("sample/noise", index, space.shape),
            cond,
            lambda k: SOLVERS[settings.solver],
            settings.steps,
            std=space.std,
            resample=1 if task.keep is None else settings.resample,
            fresh=lambda k, shape: rng.normal(f"sample/resample/{k}", index, space.shape),
        )

    return edited


def check(task: Edit, shape: tuple[int, ...]) -> None:
    """Raises UserError if an edit is invalid for examples of `shape`."""
    for name, tensor in (("start", task.start), ("keep", task.keep)):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise UserError(f"The {name} of an edit must have shape {shape}, not {tuple(tensor.shape)}.")
    if task.keep is not None and task.keep.dtype != torch.bool:
        raise UserError(f"keep must be bool, true where values must not change, not {task.keep.dtype}.")
    if not 0 <= task.strength <= 1:
        raise UserError(f"The strength of an edit is from 0 (nothing changes) to 1 (everything), not {task.strength}.")
    if task.start is None and (task.keep is not None or task.strength != 1):
        raise UserError("A strength and values to keep refer to existing examples: give the edit a start.")
    if task.energy is not None and task.observations is not None:
        raise UserError("An edit follows an energy or observations, not both. Leave one of them out.")
    if not (math.isfinite(task.weight) and task.weight >= 0):
        raise UserError(f"The weight of an energy must be finite and not negative, not {task.weight}.")


def hold_values(predict: Predict, keep: Tensor, start: Tensor) -> Predict:
    """The velocity whose predicted data is the start wherever `keep` is true: v = (start - x) / (1 - t).

    Values that are kept follow the straight line from their noise to the start, so that at every time the input of the
    network has the distribution of training (Lugmayr et al. 2022, eq. 8a, with the same noise at all times).
    """

    def inner(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        v, state = predict(x, t, cond, state)
        remaining = 1 - t.view(-1, *[1] * (x.dim() - 1))
        to_start = torch.where(remaining > 0, (start - x) / remaining.clamp_min(1e-6), 0.0)
        return torch.where(keep, to_start, v), state

    return inner


def tilt_by_energy(predict: Predict, energy: Callable[[Tensor], Tensor], weight: float, std: float) -> Predict:
    """The velocity of the density p(x) exp(-weight energy(x)), up to normalisation.

    The gradient of the energy is taken at the predicted data D(x_t), through the network (DPS, Chung et al. 2023, eqs.
    10 and 11), and changes the velocity by (1 - t) / t times its value. DPS divides by the root of the energy in order
    to bound the steps; here they are bounded by the variance r^2 of x_1 given x_t, for data of variance std^2 (Song et
    al. 2023):

        v - (1 - t) / t (dD/dx)^T g w / (1 + w r^2 k),    r^2 = (1 - t)^2 std^2 / ((1 - t)^2 + t^2 std^2)

    where g is the gradient of the energy at D and k >= 0 its curvature along g. For Gaussian data this is exact if the
    energy is linear, or quadratic with a single curvature (agreement with known values, or with means of blocks). For
    the energy sum (A x - y)^2 the weight 1 / (2 s^2) means that y has noise of standard deviation s.
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
        # At t = 0, dD/dx / t is the covariance of the data, which the network does not represent: std^2 replaces it.
        change = torch.where(a > 0, (1 - a) / a.clamp_min(1e-6) * back, std**2 * pull)
        uncorrelated = unknown / (1 - a).clamp_min(1e-6) * pull  # the change for data without correlations
        change = change * norm_bound(change, FARTHEST * uncorrelated)
        return v.detach() - change, state

    return inner


def norm_bound(x: Tensor, most: Tensor) -> Tensor:
    """The factor (B, 1, ...), at most 1, that bounds the norm of each row of x by that of `most`."""
    rank = [1] * (x.dim() - 1)
    sizes = [v.flatten(1).norm(dim=1).view(-1, *rank) for v in (x, most)]
    return (sizes[1] / sizes[0].clamp_min(1e-12)).clamp_max(1)


def descent(energy: Callable[[Tensor], Tensor], x: Tensor, far: float) -> tuple[Tensor, Tensor]:
    """The gradient of an energy at x (B, *shape), and the curvature along it, (B, 1, ...), at least 0.

    The curvature is a finite difference of the gradient over a distance of root mean square `far`, which measures
    convexity at that scale and needs no second derivative. Where the energy is concave, as colours behind a decoder
    are, it is that of the parabola with this value, this slope and the minimum 0 (Polyak's step): without a bound, one
    step left the data. Raises UserError for an energy that is not (B,) or has no gradient.
    """
    value, slope = gradient(energy, x)
    size = slope.flatten(1).norm(dim=1).view(-1, *[1] * (x.dim() - 1))
    unit = slope / size.clamp_min(1e-12)
    distance = far * math.sqrt(x[0].numel())
    change = ((gradient(energy, x + distance * unit)[1] - slope) * unit).flatten(1).sum(1).view_as(size)
    parabola = size.square() / (2 * value.abs().view_as(size)).clamp_min(1e-12)
    # A slope that falls by less than a thousandth may be that of a straight line with rounding errors.
    return slope, torch.where(change < -1e-3 * size, parabola, (change / distance).clamp_min(0))


def gradient(energy: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """An energy (B,) whose rows depend only on their own example, and its gradient, like x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = energy(x)
        if tuple(value.shape) != (len(x),):
            raise UserError(
                f"An energy must return one number for each of {len(x)} examples, not {tuple(value.shape)}."
            )
        if not value.requires_grad:
            raise UserError("An energy must be differentiable: use torch operations on x, without detach or item.")
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def intervals(ts: Tensor, resample: int) -> list[tuple[Tensor, bool]]:
    """The grids to solve in turn, and whether to return to the beginning of each afterwards.

    The first interval is not repeated, since it begins with pure noise.
    """
    if resample == 1:
        return [(ts, False)]
    length = max(1, math.ceil((len(ts) - 1) / SEGMENTS))
    out = []
    for i in range(0, len(ts) - 1, length):
        grid = ts[i : i + length + 1]
        repeats = resample - 1 if float(grid[0]) > 0 else 0
        out += [(grid, True)] * repeats + [(grid, False)]
    return out


def add_noise(x: Tensor, b: float, a: float, z: Tensor) -> Tensor:
    """Draw x_a given x at time b, for a < b, with standard normal z."""
    return a / b * x + math.sqrt((1 - a) ** 2 - (a / b * (1 - b)) ** 2) * z
