"""A velocity network that is exact for Gaussian data before training."""

from __future__ import annotations

from torch import Tensor

from afresh.core import Cond, CondSpec, Space
from afresh.engine.nets.velocity import Velocity, VelocityShape


class GaussianVelocity(Velocity):
    """Adds the network's output to E[x - e | x_t] of N(0, s^2) data: (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2) x_t
    (Karras et al. 2022, sec. 5, for the straight path). The output of a new network is zero."""

    def __init__(self, shape: VelocityShape, space: Space, conds: CondSpec) -> None:
        super().__init__(shape, space, conds)
        self.std = space.std

    def forward(self, x: Tensor, t: Tensor, cond: Cond, more: Tensor | None = None) -> Tensor:
        a, variance = t.view(-1, *[1] * (x.dim() - 1)), self.std**2
        exact = (a * variance - (1 - a)) / ((1 - a) ** 2 + a**2 * variance) * x
        return exact + super().forward(x, t, cond, more)


def gaussian_velocity(space: Space, conds: CondSpec | None = None, width: int = 8) -> GaussianVelocity:
    return GaussianVelocity(VelocityShape("unet", (width,), 1, width, True, 1), space, conds or {})
