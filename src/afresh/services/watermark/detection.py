"""The exact test for a watermark in tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from afresh.services.watermark.watermark import VARIANTS, Watermark, in_variants, token_bits

TOGETHER = 2**20  # tokens of a variant whose bits are in memory at a time


class Evidence(NamedTuple):
    """What speaks for a watermark in a text. `p_value`: the probability of as much evidence in a text that was made
    without the key, at most; 1 where nothing could be tested. `n`: the number of tokens that were tested."""

    p_value: float
    n: int


def watermark_test(tokens: Sequence[int], watermark: Watermark) -> Evidence:
    """Tests whether tokens bear a watermark, one-sided.

    A token is counted where its context occurs for the first time. Without a mark, the sum of the bits of n such tokens
    over m layers is Binomial(n m, 1/2), since the bits of distinct contexts are independent. The smallest p-value p of
    the K variants becomes 1 - (1 - p)^K (Šidák 1967).
    """
    counts, n = ones(tokens, watermark)
    if not n:
        return Evidence(1.0, 0)
    from scipy.special import bdtrc  # here: of what imports this, most does not test

    least = float(bdtrc(int(counts.max()) - 1, n * watermark.layers, 0.5)) if counts.max() > 0 else 1.0
    return Evidence(-math.expm1(VARIANTS * math.log1p(-least)) if least < 1 else 1.0, n)


def ones(tokens: Sequence[int], watermark: Watermark) -> tuple[Tensor, int]:
    """How many bits are 1 in each variant over the tokens with distinct contexts, (VARIANTS,) int64, and the number of
    these tokens."""
    counts, size = torch.zeros(VARIANTS, dtype=torch.int64), watermark.context
    if len(tokens) <= size:
        return counts, 0
    text = torch.tensor(tokens)
    keys, first = np.unique(watermark.context_keys(text[:-1].unfold(0, size, 1)).numpy(), return_index=True)
    contexts, tested = torch.from_numpy(keys), text[size:][torch.from_numpy(first)]
    for variants in torch.arange(VARIANTS).split(max(1, TOGETHER // len(keys))):
        bits = token_bits(in_variants(contexts, variants[:, None]), tested) & ((1 << watermark.layers) - 1)
        counts[variants] = set_bits(bits).sum(1)
    return counts, len(keys)


def set_bits(x: Tensor) -> Tensor:
    """How many bits of each number below 2^32 are 1 (Warren 2012, Hacker's Delight, fig. 5-2)."""
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return (x * 0x01010101 >> 24) & 0xFF
