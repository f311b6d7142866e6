"""Solvers of dx/dt = v(x, t), from noise at t = 0 to data at t = 1. Functions over a `Predict`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from afresh.core import Cond, Predict

Solver = Callable[[Predict, Tensor, Cond, Tensor], Tensor]


def times(steps: int, device: torch.device | str = "cpu") -> Tensor:
    """An even grid of steps + 1 times on [0, 1], float64."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=device)


def _velocity(predict: Predict, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    return predict(x, t.to(x.dtype).expand(len(x)), cond, None)[0]


def euler(predict: Predict, x: Tensor, cond: Cond, ts: Tensor) -> Tensor:
    """Explicit Euler: order 1, one evaluation a step."""
    for a, b in zip(ts[:-1], ts[1:], strict=True):
        x = x + (b - a).to(x.dtype) * _velocity(predict, x, a, cond)
    return x


def heun(predict: Predict, x: Tensor, cond: Cond, ts: Tensor) -> Tensor:
    """Heun's rule: order 2, two evaluations a step (Karras et al. 2022, algorithm 1, without its churn)."""
    for a, b in zip(ts[:-1], ts[1:], strict=True):
        h = (b - a).to(x.dtype)
        v = _velocity(predict, x, a, cond)
        w = _velocity(predict, x + h * v, b, cond)
        x = x + h * (v + w) / 2
    return x


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun}
ORDER = {"euler": 1, "heun": 2}
