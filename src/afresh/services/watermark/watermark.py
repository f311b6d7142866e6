"""The key of a watermark of tokens, and the keyed bits on which it rests."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from struct import unpack

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.core.rng import GOLDEN, MIX_2, Rng, mix
from afresh.services.watermark.siphash import siphash

LEAST_KEY, LONGEST_KEY = 16, 64  # bytes
MOST_CONTEXT, MOST_LAYERS = 16, 32
VARIANTS = 64


@dataclass(frozen=True)
class Watermark:
    """A watermark of tokens by tournament sampling (Dathathri et al. 2024).

    `key`: 16 to 64 secret bytes: with the same ones a text is marked and tested. `context`: the number of tokens before
    a token that choose its bits (H of the paper). `layers`: the number of bits of a token, each a round of a tournament
    (m of the paper). Raises UserError for values out of range.
    """

    key: bytes = field(repr=False)
    context: int = 4
    layers: int = 20

    def __post_init__(self) -> None:
        if not LEAST_KEY <= len(self.key) <= LONGEST_KEY:
            raise UserError(
                f"The key of a watermark has {LEAST_KEY} to {LONGEST_KEY} bytes. Given: {len(self.key)}. "
                "Make one with secrets.token_bytes(32)."
            )
        for name, value, most in (("context", self.context, MOST_CONTEXT), ("layers", self.layers, MOST_LAYERS)):
            if not 1 <= value <= most:
                raise UserError(f"`{name}` of a watermark is 1 to {most}. Given: {value}.")

    @cached_property
    def words(self) -> Tensor:
        """The key of SipHash, (2,) int64."""
        return torch.tensor(unpack("<2q", blake2b(self.key, digest_size=16).digest()))

    def context_keys(self, contexts: Tensor) -> Tensor:
        """The secret 64 bits of contexts (n, context) int64, the last token nearest, (n,) int64. Neither the key
        nor those of other contexts follow from them, as far as is known of SipHash."""
        return siphash(contexts, self.words)


def variant_of(rng: Rng, index: Tensor) -> Tensor:
    """Which of the `VARIANTS` of a watermark each text takes, (B,) int64 for `index` (B,).

    Texts with one key and one variant draw the same token after the same context, nearly always if it is a frequent
    one: without variants, the children of a hundred stories would have one name.
    """
    return rng.bits("watermark", index) & (VARIANTS - 1)


def in_variants(keys: Tensor, variants: Tensor) -> Tensor:
    """The keys of contexts in variants of a watermark, as both are broadcast, int64."""
    return keys + variants * MIX_2


def token_bits(keys: Tensor, tokens: Tensor) -> Tensor:
    """64 bits of tokens after contexts with keys `in_variants`, int64 of the shape to which both broadcast.

    Bit l is the g-value of layer l, 0 or 1 with equal probability (Dathathri et al. 2024)."""
    return mix(mix(keys + (tokens + 1) * GOLDEN))
