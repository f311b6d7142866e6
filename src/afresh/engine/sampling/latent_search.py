"""Optimisation of the latents of a decoder toward a property of its output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from afresh.core.solver_progress import step as tell


def search(
    decode: Callable[[Tensor], Tensor],
    z: Tensor,
    energy: Callable[[Tensor], Tensor],
    steps: int = 100,
    rate: float = 0.2,
) -> Tensor:
    """Minimise energy(decode(z)) + |z|^2 / 2 from the initial z (B, D), independently for each row.

    With energy = -log p(y | x) in nats and a standard normal z this is the most probable z given y (Bora et al. 2017,
    "Compressed sensing using generative models", sec. 2). The optimiser is Adam (Kingma and Ba 2015) with the
    learning rate `rate` and cosine decay to zero; the best step of each row is returned. `decode` maps (B, D) to x (B,
    ...) and `energy` maps x to (B,). Both must be differentiable, with independent rows. Rows whose energy is never
    finite are returned unchanged.
    """
    best, least = z.detach().clone(), torch.full((len(z),), torch.inf, device=z.device)

    def best_output() -> Tensor:
        return decode(best).detach()

    current, first, second = z.detach().clone().float(), torch.zeros_like(z), torch.zeros_like(z)
    for step in range(steps + 1):
        with torch.enable_grad():
            point = current.detach().requires_grad_(True)
            cost = energy(decode(point)).float() + 0.5 * point.square().sum(1)
            (slope,) = torch.autograd.grad(cost.sum(), point)
        tell(step, steps, best_output)
        better = cost.detach() < least  # false for NaN
        best, least = torch.where(better[:, None], point.detach(), best), torch.where(better, cost.detach(), least)
        if step == steps:
            break
        slope = slope.nan_to_num(0.0, 0.0, 0.0)
        first, second = first.lerp(slope, 0.1), second.lerp(slope.square(), 0.01)
        move = (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8)
        current = current - rate * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item()) * move
    return best
