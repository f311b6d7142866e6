"""Sequences that are written from latents, by the engine that draws tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Space
from afresh.core.rng import Rng
from afresh.engine.nets.decoding import kind_of
from afresh.engine.nets.sequences import SequenceDecoder
from afresh.engine.sampling.tokens import Cut, Decoding, TokenSequence, draw_plain
from afresh.services.watermark.marked_text import MarkedText
from afresh.services.watermark.watermark import Watermark

LATENT, VECTOR = "latent", "vector"  # parts of a condition that go with a sequence while it is drawn: z and c
GREEDY = Cut(temperature=0.0)


def write(
    decoder: SequenceDecoder,
    z: Tensor,
    c: Tensor | None,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    cut: Cut = GREEDY,
    length: int | None = None,
    watermark: Watermark | None = None,
) -> Tensor:
    """Tokens (n, T) int64 of latents z (n, D) and vectors of the condition c (n, cond), up to `length` of them and to
    the end of a window. They continue cond.known, if there are known tokens; short rows are padded with `end`."""
    parts = {LATENT: z} if c is None else {LATENT: z, VECTOR: c}

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        own = cond.parts.get(VECTOR)
        return decoder.step(decoder.divided(cond.parts[LATENT]), own, x, t, state, kind_of("auto", x.device))

    end, most = space.special["end"], space.shape[0]
    length = most if length is None else min(length, most)
    begun = prompts(cond, end)
    marked: Sequence[MarkedText | None] = [None] * len(begun)
    if watermark is not None:
        marked = MarkedText.of(watermark, begun, length, rng, index)
    each = [
        TokenSequence(p, i, rng, length, cut, marked=m) for p, i, m in zip(begun, index.tolist(), marked, strict=True)
    ]
    never = sorted({i for i in space.special.values() if i != end})
    draw_plain(Decoding(predict, most, z.device, end, never), each, replace(cond, parts=parts), rng, index)
    rows = [[t for t in s.new if t != end] for s in each]
    longest = max(1, *map(len, rows))
    return torch.tensor([r + [end] * (longest - len(r)) for r in rows])


def prompts(cond: Cond, end: int) -> Sequence[list[int]]:
    """The known tokens of each row behind `end`, with which records begin."""
    if cond.known is None:
        return [[end] for _ in range(cond.size)]
    inside = torch.ones_like(cond.known, dtype=torch.bool) if cond.known_mask is None else cond.known_mask
    known = [row[m].tolist() for row, m in zip(cond.known, inside, strict=True)]
    return [row if row[:1] == [end] else [end, *row] for row in known]
