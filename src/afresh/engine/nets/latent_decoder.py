"""The decoder of standardised latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class LatentDecoder(nn.Module):
    """Latents (B, channels, *grid) with mean 0 and deviation 1 in each channel to `decode(net, z)` of their own scale
    z, whose statistics `mean` and `std` are (channels,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, std: Tensor, decode: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.decode = net, decode
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        along = (-1, *[1] * (x.dim() - 2))
        return self.decode(self.net, x * self.std.view(along) + self.mean.view(along))
