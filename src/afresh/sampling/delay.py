"""Drawing residual codes in the delay pattern: all levels at once, each a step behind the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.rng import Rng
from afresh.sampling.tokens import Cut, draw, narrow


@dataclass(frozen=True)
class Codes:
    """Tokens x (B, T) int64 as they follow one another; their log-probabilities (B, T) at temperature 1 among those
    that may be drawn, 0 where one was given; which were drawn, (B, T) bool."""

    x: Tensor
    logp: Tensor
    drawn: Tensor


def generate_delayed(
    predict: Predict,
    prompts: Sequence[Sequence[int]],
    size: tuple[int, int],
    cond: Cond,
    rng: Rng,
    index: Tensor,
    cut: Cut,
    begin: int,
    banned: Sequence[int],
) -> Codes:
    """`size` (places, levels) of codes, of which each row's first are known: `prompts`, of any lengths.

    `predict` gives the logits (B, K, V) of the step after those fed so far, one of (B, K) at a time; where a step has
    no code of a level it is fed `begin`. Level k of place p is drawn at step p + k, by rng.uniform("token/i", index)
    for the i-th token of the sequence, as `generate` would; what is known is put in at its step.
    """
    places, levels = size
    x = torch.zeros(len(prompts), places * levels, dtype=torch.int64)
    drawn = torch.ones(x.shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        known = torch.tensor(prompt[: x.shape[1]], dtype=torch.int64)
        x[row, : len(known)], drawn[row, : len(known)] = known, False
    x, drawn = x.to(index.device), drawn.to(index.device)
    logp, state = torch.zeros(x.shape, device=x.device), None
    forbidden = torch.tensor(banned, dtype=torch.int64, device=x.device)
    step = torch.full((len(x), levels), begin, device=x.device)
    for s in range(places + levels - 1):
        logits, state = predict(step, None, cond, state)
        logs = logits.index_fill(2, forbidden, -torch.inf).log_softmax(2)
        step = torch.full_like(step, begin)
        for k in range(max(0, s - places + 1), min(levels, s + 1)):
            i = (s - k) * levels + k
            if cut.temperature == 0:
                made = logs[:, k].argmax(1)
            else:
                made = draw(narrow(logs[:, k], cut), rng.uniform(f"token/{1 + i}", index))
            x[:, i] = torch.where(drawn[:, i], made, x[:, i])
            logp[:, i] = logs[:, k].gather(1, x[:, i : i + 1])[:, 0].masked_fill(~drawn[:, i], 0)
            step[:, k] = x[:, i]
    return Codes(x, logp, drawn)
