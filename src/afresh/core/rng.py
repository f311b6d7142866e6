"""Random numbers as pure functions of (seed, purpose, index of the example, position).

There is no generator whose state must be saved: a resumed run draws the numbers of an uninterrupted one, and the noise
of an example is the same alone, in a batch, and on any rank. The generator is SplitMix64's finaliser applied to a keyed
counter (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", fig. 15), computed in int64, whose
products wrap around as the algorithm needs. For a device without float64 (Apple's GPU), numbers are drawn on the CPU
and moved, so that they are those of a CPU, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core.device import float64_device, tensor_on

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, which torch lacks."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser."""
    z = (z ^ _shift(z, 30)) * MIX_1
    z = (z ^ _shift(z, 27)) * MIX_2
    return z ^ _shift(z, 31)


def _key(seed: int, purpose: str) -> int:
    """64 bits for a seed and a purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "little", signed=True)


@dataclass(frozen=True)
class Rng:
    """The random numbers of a run. `index` (B,) numbers the examples; equal arguments always give equal numbers."""

    seed: int

    def bits(self, purpose: str, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform int64 of shape (B, *shape), for `index` (B,) int64, on its device."""
        return self._bits([purpose], index, shape)[0].to(index.device)

    def _bits(self, purposes: Sequence[str], index: Tensor, shape: tuple[int, ...]) -> Tensor:
        """`bits` of each purpose, (purposes, B, *shape), on the device where they are drawn."""
        index = index.to(float64_device(index.device))
        keys = [_key(self.seed, purpose) for purpose in purposes]
        # A single key goes with the operation, so that nothing is copied to the device.
        key = keys[0] if len(keys) == 1 else tensor_on(index.device, keys)[:, None]
        row = mix(mix(index.to(torch.int64)[None] * GOLDEN + key))  # (purposes, B)
        place = torch.arange(math.prod(shape), device=index.device, dtype=torch.int64)
        return mix(row[..., None] + (place + 1) * GOLDEN).view(len(purposes), len(index), *shape)

    def uniform(self, purpose: str, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform float32 in [0, 1) with 24 bits, (B, *shape)."""
        return self.uniforms([purpose], index, shape)[0]

    def uniforms(self, purposes: Sequence[str], index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """`uniform` of each purpose, (purposes, B, *shape), in the time of one call."""
        return (_shift(self._bits(purposes, index, shape), 40).float() * 2.0**-24).to(index.device)

    def normal(self, purpose: str, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """Standard normal float32, (B, *shape), by Box and Muller (1958).

        Computed in float64: the vectorised and the scalar logarithm of a library may differ in the last bit of a
        float32, so that a number would depend on its position in the batch.
        """
        n = math.prod(shape)
        half = (n + 1) // 2
        z = self._bits([purpose], index, (2, half))[0]
        u = (_shift(z, 11).double() + 0.5) * 2.0**-53  # (0, 1)
        radius = torch.sqrt(-2.0 * torch.log(u[:, 0]))
        angle = 2.0 * math.pi * u[:, 1]
        out = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)  # (B, 2 half)
        return out[:, :n].float().view(len(index), *shape).to(index.device)

    def bernoulli(self, purpose: str, index: Tensor, p: float) -> Tensor:
        """True with probability p, (B,) bool."""
        return self.uniform(purpose, index) < p

    def dropout(self, purpose: str, index: Tensor, shape: tuple[int, ...], share: float) -> Tensor:
        """Factors of activations, (B, *shape) float32: 0 for a share of them, to the nearest 1/256, and so much more
        than 1 for the others that the mean is 1 (Srivastava et al. 2014). Each takes eight bits, since the numbers of
        `uniform` would take as long as a small network."""
        *rest, last = shape
        bits = self.bits(purpose, index, (*rest, -(-last // 8))).contiguous().view(torch.uint8)[..., :last]
        dropped = round(256 * share)
        return (bits >= dropped).float() * (256 / (256 - dropped))


class MixedRng(Rng):
    """The random numbers of examples from several requests: example `i` has those that `Rng(seeds[i])` gives the
    example numbers[i]."""

    def __init__(self, seeds: Sequence[int], numbers: Sequence[int]) -> None:
        super().__init__(0)
        object.__setattr__(self, "rows", list(zip(seeds, numbers, strict=True)))

    def _bits(self, purposes: Sequence[str], index: Tensor, shape: tuple[int, ...]) -> Tensor:
        rows: list[tuple[int, int]] = [self.__dict__["rows"][i] for i in index.tolist()]
        home = float64_device(index.device)
        out = torch.empty((len(purposes), len(rows), *shape), dtype=torch.int64, device=home)
        for seed in dict.fromkeys(seed for seed, _ in rows):
            which = [place for place, row in enumerate(rows) if row[0] == seed]
            numbers = tensor_on(home, [rows[place][1] for place in which])
            out[:, tensor_on(home, which)] = Rng(seed)._bits(purposes, numbers, shape)
        return out
