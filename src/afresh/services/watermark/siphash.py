"""SipHash-2-4 (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF", INDOCRYPT) of rows of 64-bit words."""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.engine.nets.kernels.build import library
from afresh.engine.nets.kernels.functions import call_as

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
