"""Codes of a trained codec, searched for: analysis by synthesis, as speech coders do it.

An encoder guesses; the decoder is known. From the guess on, a few steps along the gradient of what the decoder makes of
the codes (through their rounding, straight through) bring it nearer to the field. What is sent, and how it is decoded,
stay as they are: only the sender works more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.families.autoencoder import importance
from afresh.families.codecs.trained import CHUNK, TrainedCodec
from afresh.nets.autoencoder import latents
from afresh.sampling.latent_search import search

STEPS, RATE = 10, 0.1


def searched(
    codec: TrainedCodec, x: Tensor, high: float, quiet: Tensor | None = None, sent: Tensor | None = None
) -> Tensor:
    """Codes (B, rows, columns, K) of fields x (B, C, rows * factor, columns * factor), by the error that `family.high`
    weighs.

    `quiet` (rows, columns, K): what the receiver takes where `sent` (B, columns) is false; only what is sent is
    searched for, beside that.
    """
    every = torch.ones(len(x), codec.grid[1], dtype=torch.bool) if sent is None else sent
    parts = [some_searched(codec, x[a : a + CHUNK], high, quiet, every[a : a + CHUNK]) for a in range(0, len(x), CHUNK)]
    return torch.cat(parts)


def some_searched(codec: TrainedCodec, x: Tensor, high: float, quiet: Tensor | None, sent: Tensor) -> Tensor:
    quantiser, decoder, depth = codec.modules["quantiser"], codec.modules["decoder"], codec.net.residual
    weight, given = importance(x, high), sent[:, None, None, :]
    with torch.no_grad():
        start = latents(codec.modules, codec.net, x)
        rest = torch.zeros_like(start[:1])
        if quiet is not None:
            rest = quantiser.vectors(quiet[None] if depth > 1 else quiet[None, ..., 0])  # type: ignore[operator]

    def decoded(z: Tensor) -> Tensor:
        made: Tensor = decoder(torch.where(given, quantiser(z.view_as(start)), rest))
        return made

    def far(made: Tensor) -> Tensor:
        return ((made - x).square() * weight).flatten(1).sum(1)

    z = search(decoded, start.flatten(1), far, STEPS, RATE, prior=0.0).view_as(start)
    codes: Tensor = quantiser.codes(z)  # type: ignore[operator]
    return codes.view(len(x), *codec.grid, depth)
