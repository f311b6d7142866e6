"""The key of a watermark of tokens, and the keyed bits on which it rests.

The bits are made by SipHash-2-4 (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF", INDOCRYPT) of rows of
64-bit words.

Tournament sampling is done in closed form. Two candidates a match that are drawn from p, of which the one with the
larger bit wins and either if they are equal, give p(x) (1 + g(x) - sum p g) for a layer with the bits g, and a
tournament of m rounds is m such layers (Dathathri et al. 2024, "Scalable watermarking for identifying large language
model outputs", Nature 634, methods). The mean over bits is p itself: a token that is drawn once with a key has the
probability that the model gives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from struct import unpack

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.core.rng import GOLDEN, MIX_2, Rng, mix
from afresh.engine.nets.kernels.build import library
from afresh.engine.nets.kernels.functions import call_as
from afresh.services.watermark import check_key

START = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


def siphash(words: Tensor, key: Tensor) -> Tensor:
    """64 bits of each row of words (n, k) int64 under a key (2,) int64, (n,) int64. The message is the words' bytes in
    little-endian order."""
    if words.device.type == "cpu" and library() is not None:
        out = torch.empty(len(words), dtype=torch.int64)
        call_as("siphash", words.contiguous(), key, out, *words.shape)
        return out
    return siphash_by_pytorch(words, key)


def siphash_by_pytorch(words: Tensor, key: Tensor) -> Tensor:
    """The same by PyTorch's operations, on the device of the words."""
    v = [torch.full_like(words[:, 0], begin) ^ int(key[i % 2]) for i, begin in enumerate(START)]
    last = torch.full_like(words[:, 0], _signed((8 * words.shape[1] % 256) << 56))
    for word in (*words.unbind(1), last):
        v[3] = v[3] ^ word
        v = _round(_round(v))
        v[0] = v[0] ^ word
    v[2] = v[2] ^ 0xFF
    for _ in range(4):
        v = _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _rotated(x: Tensor, bits: int) -> Tensor:
    """To the left."""
    return (x << bits) | ((x >> (64 - bits)) & ((1 << bits) - 1))


def _round(v: list[Tensor]) -> list[Tensor]:
    a, b, c, d = v
    a, c = a + b, c + d
    b, d = _rotated(b, 13) ^ a, _rotated(d, 16) ^ c
    a = _rotated(a, 32)
    c, a = c + b, a + d
    b, d = _rotated(b, 17) ^ c, _rotated(d, 21) ^ a
    return [a, b, _rotated(c, 32), d]


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
        check_key(self.key, "a watermark")
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
