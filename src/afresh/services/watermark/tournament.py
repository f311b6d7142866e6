"""Tournament sampling in closed form.

Two candidates a match that are drawn from p, of which the one with the larger bit wins and either if they are equal,
give p(x) (1 + g(x) - sum p g) for a layer with the bits g, and a tournament of m rounds is m such layers (Dathathri et
al. 2024, "Scalable watermarking for identifying large language model outputs", Nature 634, methods). The mean over bits
is p itself: a token that is drawn once with a key has the probability that the model gives it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.engine.nets.kernels.build import library
from afresh.engine.nets.kernels.functions import call_as
from afresh.services.watermark.watermark import token_bits

FLOOR = 2.0**-10  # tokens that are less likely do not take part


def tournament(p: Tensor, bits: Tensor, layers: int) -> Tensor:
    """The distribution (B, V) of the winner among 2^layers candidates, each drawn from p (B, V), with `bits` (B, V)
    int64 of the tokens. Rows of p need not have the sum 1, and keep theirs."""
    mass = p.sum(-1, keepdim=True)
    q = p / mass
    for layer in range(layers):
        g = ((bits >> layer) & 1).to(q.dtype)
        q = q * (1 + g - (q * g).sum(-1, keepdim=True))
    return q * mass


def marked_rows(p: Tensor, rows: Tensor, keys: Tensor, layers: int) -> Tensor:
    """p (B, V) float64 with the `rows` (R,) marked, whose contexts have the `keys` (R,) int64 in their variants, on the
    CPU.

    The tournament is among the tokens that have a probability of at least `FLOOR`, in proportion to it; the others keep
    theirs. Since p alone says which these are, the mean over keys remains p. On a CPU with compiled kernels p is
    changed in place.
    """
    if p.device.type == "cpu" and p.dtype is torch.float64 and p.is_contiguous() and library() is not None:
        call_as("tournament", p, rows, keys, len(rows), p.shape[1], layers, FLOOR)
        return p
    rows, keys = rows.to(p.device), keys.to(p.device)
    bits = token_bits(keys[:, None], torch.arange(p.shape[1], device=p.device))
    old = p[rows]
    likely = old >= FLOOR
    new = tournament(torch.where(likely, old, 0.0), bits, layers)
    return p.index_copy(0, rows, torch.where(likely, new, old))
