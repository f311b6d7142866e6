"""The latent that a decoder must be given for its output to have a wanted property."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def search(
    decode: Callable[[Tensor], Tensor],
    z: Tensor,
    energy: Callable[[Tensor], Tensor],
    steps: int = 100,
    rate: float = 0.2,
    prior: float = 1.0,
) -> Tensor:
    """The best z (B, D) found from `z` for energy(decode(z)) + prior |z|^2 / 2, each row by itself.

    With energy = -log p(y | x) in nats and a standard normal z this is the most probable z given y (Bora et al. 2017,
    "Compressed sensing using generative models", sec. 2). Adam (Kingma and Ba 2015) at `rate`, which falls to zero as
    a cosine; of all steps each row keeps its best. `decode` maps (B, D) to x (B, ...), `energy` x to (B,): both
    differentiable, and the rows of both independent. Rows whose energy is never finite stay as they were.
    """
    best, least = z.detach().clone(), torch.full((len(z),), torch.inf, device=z.device)
    now, first, second = z.detach().clone().float(), torch.zeros_like(z), torch.zeros_like(z)
    for step in range(steps + 1):
        with torch.enable_grad():
            here = now.detach().requires_grad_(True)
            cost = energy(decode(here)).float() + 0.5 * prior * here.square().sum(1)
            (slope,) = torch.autograd.grad(cost.sum(), here)
        better = cost.detach() < least  # never where it is not a number
        best, least = torch.where(better[:, None], here.detach(), best), torch.where(better, cost.detach(), least)
        if step == steps:
            break
        slope = slope.nan_to_num(0.0, 0.0, 0.0)
        first, second = first.lerp(slope, 0.1), second.lerp(slope.square(), 0.01)
        move = (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8)
        now = now - rate * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item()) * move
    return best
