"""The delay pattern for residual codes: all K levels at once, level k of a place k steps after its first.

Copet et al. 2023 (MusicGen), sec. 2.1: P places of K codes become P + K - 1 steps of K codes, step s holding level k of
place s - k. A step is one evaluation of the network, so that drawing P places takes P + K - 1 of them instead of P K,
and attention looks at so many. A code is given all codes of earlier steps, and does not see those of its own: a factor
of the product rule each, so that their product is a likelihood, in another order than that of the flat sequence.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Predict
from afresh.nets.decoding import decode, kind_of
from afresh.nets.kernels.decode import Kind
from afresh.nets.transformer import Decoder, DecoderShape


def steps_of(places: int, levels: int) -> int:
    """How many steps so many places of so many levels take."""
    return places + levels - 1


def delayed(codes: Tensor, fill: int) -> Tensor:
    """(B, P, K) -> (B, P + K - 1, K): level k moved k steps on, `fill` where there is no code."""
    b, places, levels = codes.shape
    out = codes.new_full((b, steps_of(places, levels), levels), fill)
    for k in range(levels):
        out[:, k : k + places, k] = codes[:, :, k]
    return out


def undelayed(steps: Tensor) -> Tensor:
    """(B, P + K - 1, K, ...) -> (B, P, K, ...): what `delayed` moved, moved back."""
    levels = steps.shape[2]
    places = steps.shape[1] - levels + 1
    return torch.stack([steps[:, k : k + places, k] for k in range(levels)], 2)


class Delayed(Decoder):
    """A decoder over steps of K codes: their K embeddings, one table a level, are summed, and each level has a head.

    Codes are 0 ... V - 1 in each level; `begin` stands where a step has no code, and before the first. The tables are
    parts of one of K V rows, the heads of one layer of K V outputs: to what runs a decoder (the kernels,
    adapters) it is one whose first code of a step is the token, the others added to it as a condition is.
    """

    def __init__(self, shape: DecoderShape, spec: CondSpec, levels: int, begin: int) -> None:
        super().__init__(replace(shape, vocab=levels * shape.vocab), spec)
        self.levels, self.begin = levels, begin
        nn.init.normal_(self.embedding.weight, std=0.5 / math.sqrt(levels))  # so that the sum is as large as a token's

    def by_place(self, tokens: Tensor) -> Tensor:
        """Tokens (B, P K) as they follow one another -> (B, P, K)."""
        return tokens.unflatten(1, (-1, self.levels))

    def before(self, tokens: Tensor) -> Tensor:
        """What each step of (B, P K) is predicted from: the step before it, (B, S, K)."""
        steps = delayed(self.by_place(tokens), self.begin)[:, :-1]
        return nn.functional.pad(steps, (0, 0, 1, 0), value=self.begin)

    def entered(self, steps: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps (B, S, K) and a condition (B, width) as tokens (B, S) and what is added to each, (B, S, width)."""
        rows = steps + torch.arange(self.levels, device=steps.device) * (self.shape.vocab // self.levels)
        added = self.embedding(rows[..., 1:]).sum(2)
        return rows[..., 0], added if c is None else added + c[:, None].to(added.dtype)

    def forward(
        self, tokens: Tensor, c: Tensor | None, targets: Tensor | None = None, kept: Tensor | None = None
    ) -> Tensor:
        """Steps (B, S, K) to logits (B, S, K, V) float32; with `targets` (B, S, K), -1 where they do not count: nats,
        (B,) sums."""
        h = self.hidden(*self.entered(tokens, c), kept=kept)
        return self.split(self.logits(h)) if targets is None else self.nats(h, targets)

    def split(self, logits: Tensor) -> Tensor:
        """(..., K V) -> (..., K, V)."""
        return logits.unflatten(-1, (self.levels, -1))


def step_predictor(net: Delayed, context: int, weights: Kind | Literal["auto"] = "auto") -> Predict:
    """Logits (B, K, V) of the step after those fed so far, one of codes x (B, K) at a time."""

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        tokens, added = net.entered(x[:, None], net.condition(cond))
        logits, state = decode(net, tokens, None, added[:, 0], state, context, kind_of(weights, x.device))
        return net.split(logits), state

    return predict
