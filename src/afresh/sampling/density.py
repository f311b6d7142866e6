"""What a flow says of data that exist: their exact log-likelihood, and the noise they come from.

The flow is a bijection between noise at t = 0 and data at t = 1, so that densities change by its volume alone
(Chen et al. 2018, theorem 1; Song et al. 2021, sec. 4.3 and appendix D.2):

    log p(x_1) = log N(x_0; 0, I) - integral over [0, 1] of div v(x_t, t) dt
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.rng import Rng
from afresh.sampling.ode import heun, velocity

Rule = Literal["heun", "rk4"]
RULE_ORDER: dict[Rule, int] = {"heun": 2, "rk4": 4}


def rademacher(rng: Rng, index: Tensor, shape: tuple[int, ...], count: int) -> Tensor:
    """`count` probes of +1 and -1 for each example, (count, B, *shape) float32, keyed by `index`."""
    bits = [rng.bits(f"likelihood/probe/{k}", index, shape) for k in range(count)]
    return torch.stack([torch.where(b < 0, -1.0, 1.0) for b in bits])


def divergence(predict: Predict, x: Tensor, t: Tensor, cond: Cond, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """v (B, *shape) and its divergence (B,) float64, at one time t for all rows.

    Without probes exact, by one backward pass for each of the D values of a row. With probes (K, B, *shape) it is the
    mean of e . (dv/dx)^T e over them, which is right in expectation (Hutchinson 1990; Grathwohl et al. 2019).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(predict, x, t, cond)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if not v.requires_grad:  # the same everywhere
            return v, total
        dims = x[0].numel()
        count = dims if probes is None else len(probes)
        for k in range(count):
            e = _unit(k, x) if probes is None else probes[k].to(x)
            (back,) = torch.autograd.grad(v, x, e, retain_graph=k + 1 < count, allow_unused=True)
            if back is not None:
                total = total + (back * e).flatten(1).double().sum(1)
    return v.detach(), total if probes is None else total / count


def _unit(k: int, x: Tensor) -> Tensor:
    """The k-th direction of a row, for every row."""
    e = torch.zeros_like(x[0]).flatten()
    e[k] = 1
    return e.view(1, *x.shape[1:]).expand_as(x)


def log_likelihood(
    predict: Predict, x: Tensor, cond: Cond, ts: Tensor, probes: Tensor | None = None, rule: Rule = "rk4"
) -> Tensor:
    """log p(x | cond) in nats of a density over x's own units, (B,) float64.

    `ts` rises from 0 to 1 and is gone through backwards; `rule` is Heun's (order 2, two evaluations a step) or the
    classical one of Runge and Kutta (order 4, four). `probes` as in `divergence`, the same at all times, so that the
    estimate has no bias and the integrand stays smooth. What is left is the error of the steps.
    """

    def rates(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return divergence(predict, x, t, cond, probes)

    x = x.detach()
    volume = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    back = ts.flip(0)
    for a, b in zip(back[:-1], back[1:], strict=True):
        h = float(b - a)
        moved, grown = (_heun if rule == "heun" else _rk4)(rates, x, a, b)
        x, volume = x + h * moved, volume + h * grown
    noise = x.double().flatten(1)
    return -0.5 * noise.square().sum(1) - 0.5 * noise.shape[1] * math.log(2 * math.pi) + volume


Rates = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _heun(rates: Rates, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The mean rates of x and of its volume from a to b."""
    v1, d1 = rates(x, a)
    v2, d2 = rates(x + float(b - a) * v1, b)
    return (v1 + v2) / 2, (d1 + d2) / 2


def _rk4(rates: Rates, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same, of order 4."""
    h, middle = float(b - a), (a + b) / 2
    v1, d1 = rates(x, a)
    v2, d2 = rates(x + h / 2 * v1, middle)
    v3, d3 = rates(x + h / 2 * v2, middle)
    v4, d4 = rates(x + h * v3, b)
    return (v1 + 2 * v2 + 2 * v3 + v4) / 6, (d1 + 2 * d2 + 2 * d3 + d4) / 6


def bits_per_dim(nats: Tensor, dims: int, scale: float) -> Tensor:
    """Bits per value of bytes that became a field by x = scale * byte + shift, of `dims` values; (B,).

    `nats` is the log-density at `dequantised` x. A byte holds all of its bin, so that the density over bytes is
    scale^dims times that over x; in expectation the result is at least the bits of the best code for the bytes
    themselves (Theis et al. 2016, sec. 3.1).
    """
    return -(nats + dims * math.log(scale)) / (dims * math.log(2))


def dequantised(x: Tensor, scale: float, rng: Rng, index: Tensor) -> Tensor:
    """x plus noise that is uniform over the bin of its byte, scale wide and centred (Theis et al. 2016, sec. 3.1)."""
    return x + scale * (rng.uniform("likelihood/bin", index, tuple(x.shape[1:])) - 0.5)


def invert(predict: Predict, x: Tensor, cond: Cond, ts: Tensor, rounds: int = 0) -> Tensor:
    """The noise at t = 0 from which `heun` over the same `ts` makes x (B, *shape).

    Heun's rule backwards comes back to x up to an error of order 2. The `rounds` then look, in every step, for the
    point that the step forwards takes exactly to where the step backwards began, by defect correction (Stetter 1978):
    y + back(x) - back(forth(y)). A row that comes no nearer goes half as far the next time: where data is sharp, a step
    may fold and have no inverse. Two evaluations a step, and with rounds 2 + 4 rounds more.
    """
    for i in range(len(ts) - 1, 0, -1):
        pair = ts[i - 1 : i + 1]
        y = heun(predict, x, cond, pair.flip(0))
        x = _refined(predict, x, y, cond, pair, rounds) if rounds else y
    return x


def _refined(predict: Predict, x: Tensor, y: Tensor, cond: Cond, pair: Tensor, rounds: int) -> Tensor:
    """y, moved so that Heun's step over `pair` takes it nearer to x; y is what his step backwards makes of x."""
    rank = [1] * (x.dim() - 1)
    aim, back = y, pair.flip(0)
    pace = torch.ones(len(x), device=x.device, dtype=x.dtype)
    there = heun(predict, y, cond, pair)
    for _ in range(rounds):
        tried = y + pace.view(-1, *rank) * (aim - heun(predict, there, cond, back))
        led = heun(predict, tried, cond, pair)
        nearer = (led - x).flatten(1).square().sum(1) < (there - x).flatten(1).square().sum(1)
        rows = nearer.view(-1, *rank)
        y, there = torch.where(rows, tried, y), torch.where(rows, led, there)
        pace = torch.where(nearer, pace, pace / 2)
    return y
