"""The log-likelihood of data under a flow, and the noise that a flow maps to them.

The flow is a bijection between noise at t = 0 and data at t = 1, so that densities change by its volume change (Chen et
al. 2018, theorem 1; Song et al. 2021, sec. 4.3 and appendix D.2):

    log p(x_1) = log N(x_0; 0, I) - integral over [0, 1] of div v(x_t, t) dt
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.device import float64_device, wide
from afresh.core.rng import Rng
from afresh.core.solver_progress import part_of, step
from afresh.engine.sampling.ode import heun, velocity


def rademacher(rng: Rng, index: Tensor, shape: tuple[int, ...], count: int) -> Tensor:
    """`count` probes of +1 and -1 for each example, (count, B, *shape) float32, keyed by `index`."""
    bits = [rng.bits(f"likelihood/probe/{k}", index, shape) for k in range(count)]
    return torch.stack([torch.where(b < 0, -1.0, 1.0) for b in bits])


def divergence(predict: Predict, x: Tensor, t: Tensor, cond: Cond, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """The velocity (B, *shape) and its divergence (B,), float64, at one time t for all rows.

    Without probes it is exact, with one backward pass for each of the D values of a row. With probes (K, B, *shape) it
    is the mean of e . (dv/dx)^T e over them, an unbiased estimate (Hutchinson 1990; Grathwohl et al. 2019).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(predict, x, t, cond)
        total = torch.zeros(len(x), dtype=torch.float64, device=float64_device(x.device))
        if not v.requires_grad:  # the velocity does not depend on x
            return v, total
        dims = x[0].numel()
        count = dims if probes is None else len(probes)
        for k in range(count):
            e = _unit(k, x) if probes is None else probes[k].to(x)
            (back,) = torch.autograd.grad(v, x, e, retain_graph=k + 1 < count, allow_unused=True)
            if back is not None:
                total = total + wide((back * e).flatten(1)).sum(1)
    return v.detach(), total if probes is None else total / count


def _unit(k: int, x: Tensor) -> Tensor:
    """The k-th unit vector of a row, for every row of x."""
    e = torch.zeros_like(x[0]).flatten()
    e[k] = 1
    return e.view(1, *x.shape[1:]).expand_as(x)


def log_likelihood(predict: Predict, x: Tensor, cond: Cond, ts: Tensor, probes: Tensor | None = None) -> Tensor:
    """log p(x | cond) in nats, (B,) float64; the density is in the units of x.

    The times `ts` increase from 0 to 1 and are used in reverse, by the classical Runge-Kutta rule (order 4, four
    evaluations a step). `probes`: see `divergence`; they are the same at all
    times, so that the estimate is unbiased and the integrand smooth. The remaining error is that of the discretisation.
    """

    def rates(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return divergence(predict, x, t, cond, probes)

    x = x.detach()
    volume = torch.zeros(len(x), dtype=torch.float64, device=float64_device(x.device))
    back = ts.flip(0)
    for i, (a, b) in enumerate(zip(back[:-1], back[1:], strict=True)):
        step(i, len(back) - 1)
        h = float(b - a)
        dx, growth = _rk4(rates, x, a, b)
        x, volume = x + h * dx, volume + h * growth
    noise = wide(x).flatten(1)
    return -0.5 * noise.square().sum(1) - 0.5 * noise.shape[1] * math.log(2 * math.pi) + volume


Rates = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _rk4(rates: Rates, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The mean rates of change of x and of its log volume from a to b, of order 4."""
    h, middle = float(b - a), (a + b) / 2
    v1, d1 = rates(x, a)
    v2, d2 = rates(x + h / 2 * v1, middle)
    v3, d3 = rates(x + h / 2 * v2, middle)
    v4, d4 = rates(x + h * v3, b)
    return (v1 + 2 * v2 + 2 * v3 + v4) / 6, (d1 + 2 * d2 + 2 * d3 + d4) / 6


def bits_per_dim(nats: Tensor, dims: int, scale: float) -> Tensor:
    """Bits per value, (B,), of bytes that were encoded as a field of `dims` values by x = scale * byte + shift.

    `nats` is the log-density at x with the noise of `dequantise`. A byte corresponds to its whole bin, so that the
    density of bytes is scale^dims times that of x. In expectation the result is an upper bound of the bits of a code
    for the bytes (Theis et al. 2016, sec. 3.1).
    """
    return -(nats + dims * math.log(scale)) / (dims * math.log(2))


def dequantise(x: Tensor, scale: float, rng: Rng, index: Tensor) -> Tensor:
    """x plus noise that is uniform over the centred bin of its byte, of width scale (Theis et al. 2016, sec. 3.1)."""
    return x + scale * (rng.uniform("likelihood/bin", index, tuple(x.shape[1:])) - 0.5)


def invert(predict: Predict, x: Tensor, cond: Cond, ts: Tensor, rounds: int = 0) -> Tensor:
    """The noise at t = 0 from which `heun` with the same `ts` reaches x (B, *shape).

    Heun's rule in reverse has an error of order 2. In every step, `rounds` iterations of defect correction (Stetter
    1978) reduce it: y + back(x) - back(forth(y)) approaches the point that the forward step maps to x. A row that does
    not improve takes half the correction in the next round: where the density is sharp, a step may fold and have no
    inverse. Each step needs two evaluations, and with rounds 2 + 4 rounds more.
    """
    for i in range(len(ts) - 1, 0, -1):
        pair = ts[i - 1 : i + 1]
        with part_of(len(ts) - 1 - i, len(ts) - 1):
            y = heun(predict, x, cond, pair.flip(0))
            x = _refined(predict, x, y, cond, pair, rounds) if rounds else y
    return x


def _refined(predict: Predict, x: Tensor, y: Tensor, cond: Cond, pair: Tensor, rounds: int) -> Tensor:
    """Improve y, the reverse step of Heun's rule from x over `pair`, so that the forward step ends nearer to x."""
    rank = [1] * (x.dim() - 1)
    target, back = y, pair.flip(0)
    factor = torch.ones(len(x), device=x.device, dtype=x.dtype)
    end = heun(predict, y, cond, pair)
    for _ in range(rounds):
        candidate = y + factor.view(-1, *rank) * (target - heun(predict, end, cond, back))
        candidate_end = heun(predict, candidate, cond, pair)
        nearer = (candidate_end - x).flatten(1).square().sum(1) < (end - x).flatten(1).square().sum(1)
        rows = nearer.view(-1, *rank)
        y, end = torch.where(rows, candidate, y), torch.where(rows, candidate_end, end)
        factor = torch.where(nearer, factor, factor / 2)
    return y
