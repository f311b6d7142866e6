"""Solvers of dx/dt = v(x, t), from noise at t = 0 to data at t = 1, and of an SDE with the same marginals.

All are functions of a `Predict` of the velocity on the straight path x_t = (1 - t) e + t x: alpha = t, sigma = 1 - t.
On this path the predicted data is D = x_t + (1 - t) v, and the log signal-to-noise ratio lambda = log(t / (1 - t)).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.solver_progress import step

Solver = Callable[[Predict, Tensor, Cond, Tensor], Tensor]
Noise = Callable[[int, tuple[int, ...]], Tensor]  # (step, shape of x) -> standard normal


def times(steps: int, shift: float = 1.0) -> Tensor:
    """A grid of steps + 1 times on [0, 1], float64 on the CPU: even, or denser near the noise for `shift` above
    1.

    The noise level 1 - t becomes shift (1 - t) / (1 + (shift - 1)(1 - t)) (Esser et al. 2024, eq. 23, where t is the
    noise level): t' = t / (t + shift (1 - t)). For a shift below 1, steps are denser near the data.
    """
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return t / (t + shift * (1 - t))


def velocity(predict: Predict, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """The velocity at one time t for all rows of x."""
    at = torch.full((len(x),), float(t), dtype=x.dtype, device=x.device)  # as a number, nothing is copied to a GPU
    return predict(x, at, cond, None)[0]


def report_step(i: int, ts: Tensor, x: Tensor, v: Tensor) -> None:
    """Tell that step i was taken, from x with the velocity v: the predicted data is D = x + (1 - t) v."""
    step(i + 1, len(ts) - 1, lambda: x + (1 - float(ts[i])) * v)


def euler(predict: Predict, x: Tensor, cond: Cond, ts: Tensor) -> Tensor:
    """Explicit Euler: order 1, one evaluation a step."""
    for i, (a, b) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        v = velocity(predict, x, a, cond)
        report_step(i, ts, x, v)
        x = x + (b - a).to(x.dtype) * v
    return x


def heun(predict: Predict, x: Tensor, cond: Cond, ts: Tensor) -> Tensor:
    """Heun's rule: order 2, two evaluations a step (Karras et al. 2022, algorithm 1, without its churn)."""
    for i, (a, b) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        h = (b - a).to(x.dtype)
        v = velocity(predict, x, a, cond)
        report_step(i, ts, x, v)
        w = velocity(predict, x + h * v, b, cond)
        x = x + h * (v + w) / 2
    return x


def ab2(predict: Predict, x: Tensor, cond: Cond, ts: Tensor) -> Tensor:
    """The two-step rule of Adams (Bashforth and Adams 1883) on the velocity: order 2, one evaluation a step.

    v is extrapolated linearly in t to the middle of the step from its last two values; the first step is Euler's.
    """
    previous: Tensor | None = None
    for i, (a, b) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        v = velocity(predict, x, a, cond)
        report_step(i, ts, x, v)
        extrapolated = v if previous is None else v + float((b - a) / (2 * (a - ts[i - 1]))) * (v - previous)
        previous, x = v, x + (b - a).to(x.dtype) * extrapolated
    return x


def dpmpp(predict: Predict, x: Tensor, cond: Cond, ts: Tensor) -> Tensor:
    """DPM-Solver++(2M): order 2, one evaluation a step (Lu et al. 2022b, algorithm 2).

    D is extrapolated linearly in lambda to the middle of the step from its last two values; otherwise a step is Euler's
    on the straight path. Where lambda is infinite (t = 0, t = 1), extrapolation is not possible: the first two steps
    and the last are Euler's, and the last ends at D. The order therefore holds for steps within (0, 1). The result is
    exact for a point mass.
    """
    return sde(predict, x, cond, ts)


def sde(predict: Predict, x: Tensor, cond: Cond, ts: Tensor, noise: Noise | None = None, churn: float = 1.0) -> Tensor:
    """SDE-DPM-Solver++(2M) with `churn` (Lu et al. 2022b; Xue et al. 2023, whose tau^2 is `churn`).

    A step replaces a share of its noise by new noise, keeping k = exp(-churn (lambda_b - lambda_a)):

        x_b = (1 - b) / (1 - a) k x_a + (b - a (1 - b) / (1 - a) k) D + (1 - b) sqrt(1 - k^2) z

    The marginals are those of the ODE for any churn: 1 is the reverse diffusion and 0 the ODE. Without `noise` this is
    `dpmpp`. One evaluation a step. Raises ValueError if noise is to be added at decreasing times, from data to noise.
    """
    churn = 0.0 if noise is None else churn
    if churn and bool(ts[-1] < ts[0]):
        raise ValueError("noise can only be added at increasing times, from noise to data")
    grid: list[float] = ts.tolist()
    previous: Tensor | None = None
    for i, (a, b) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        v = velocity(predict, x, ts[i], cond)
        report_step(i, ts, x, v)
        data = x + (1 - a) * v
        keep = (a * (1 - b) / ((1 - a) * b)) ** churn if churn else 1.0
        toward = b * (1 - a) - a * (1 - b) * keep  # times (D - x) / (1 - a), which is v
        # Written with v, nothing is divided by 1 - a, and a velocity of zero leaves x unchanged, bit for bit.
        out = (1 - (1 - b) * (1 - keep)) * x + toward * v
        factor = _extrapolation(grid[i - 1], a, b) if previous is not None else 0.0
        if previous is not None and factor:
            out = out + toward / (1 - a) * factor * (data - previous)
        if keep < 1 and b < 1 and noise is not None:
            out = out + (1 - b) * math.sqrt(1 - keep**2) * noise(i, tuple(x.shape)).to(x)
        previous, x = data, out
    return x


def _extrapolation(previous: float, a: float, b: float) -> float:
    """Half the step from a to b divided by the step before, in lambda; 0 if any lambda is infinite."""
    if not all(0 < t < 1 for t in (previous, a, b)):
        return 0.0
    p, q, r = (math.log(t / (1 - t)) for t in (previous, a, b))
    return (r - q) / (2 * (q - p))


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "ab2": ab2, "dpmpp": dpmpp, "sde": sde}
ORDER = {"euler": 1, "heun": 2, "ab2": 2, "dpmpp": 2, "sde": 2}  # of sde without noise
EVALUATIONS = {"euler": 1, "heun": 2, "ab2": 1, "dpmpp": 1, "sde": 1}  # of the network in each step
