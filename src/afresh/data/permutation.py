"""A random order of any number of examples; single places are computed without a list of all.

Up to LISTED examples the order is that of random keys, which is kept as a list. For more it is a permutation of
0 ... n - 1 by a Feistel network over pairs (row, column) of a table with at least n cells, whose numbers beyond n - 1
are passed through again until they are below n ("cycle walking"): Black and Rogaway 2002, "Ciphers with arbitrary
finite domains", methods 2 and 3. Each round is invertible, whatever its function, so every example occurs once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from afresh.core.rng import Rng

LISTED = 1 << 20  # examples whose order is kept as a list, of 8 MB
ROUNDS = 8  # of the network; four would do for who sees few places; training sees all


class Order:
    """The order of `count` examples that depends on the random numbers of one purpose alone."""

    def __init__(self, rng: Rng, purpose: str, count: int) -> None:
        self.rng, self.purpose, self.count = rng, purpose, count
        self.listed: Tensor | None = None
        if count <= LISTED:
            self.listed = listed_order(rng, purpose, count)

    def at(self, places: Tensor) -> Tensor:
        """The examples (B,) at places (B,) of the order, both int64 in 0 ... count - 1."""
        return permuted(places, self.count, self.rng, self.purpose) if self.listed is None else self.listed[places]


def listed_order(rng: Rng, purpose: str, count: int) -> Tensor:
    """All examples in the order of random keys, (count,) int64."""
    return rng.bits(purpose, torch.arange(count)).argsort(stable=True)


def permuted(places: Tensor, count: int, rng: Rng, purpose: str) -> Tensor:
    """The images (B,) of places (B,) under the permutation of 0 ... count - 1 for this purpose, by the Feistel network
    with cycle walking of Black and Rogaway 2002."""
    columns = math.isqrt(max(0, count - 1)) + 1
    rows = -(-count // columns)
    out = places.clone()
    outside = torch.ones(len(out), dtype=torch.bool)
    while bool(outside.any()):  # the table has fewer than `columns` cells too many, so hardly ever twice
        out[outside] = _encrypted(out[outside], rows, columns, rng, purpose)
        outside = out >= count
    return out


def _encrypted(cells: Tensor, rows: int, columns: int, rng: Rng, purpose: str) -> Tensor:
    row, column = cells.div(columns, rounding_mode="floor"), cells % columns
    for number in range(0, ROUNDS, 2):
        row = (row + _drawn(rng, f"{purpose}/{number}", column)) % rows
        column = (column + _drawn(rng, f"{purpose}/{number + 1}", row)) % columns
    return row * columns + column


def _drawn(rng: Rng, purpose: str, index: Tensor) -> Tensor:
    """Uniform int64 from 0 to 2^62 - 1, (B,), to which an index is added without overflow."""
    return (rng.bits(purpose, index) >> 1) & ((1 << 62) - 1)
