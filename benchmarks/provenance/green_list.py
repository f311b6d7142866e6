"""The green list of Kirchenbauer et al. 2023, "A watermark for large language models", ICML: a rival of the watermark.

Before each token, a keyed hash of the one before it makes a share gamma of the vocabulary green, and delta is added to
the logits of these (algorithm 2, the soft list). A text has a mark if too many of its tokens are green.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import Tensor

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.engine.sampling.next_token import never_drawn, predictor
from afresh.engine.sampling.tokens import Cut, draw, narrow
from afresh.runs.run import Run
from afresh.services.watermark.watermark import token_bits


@dataclass(frozen=True)
class GreenList:
    key: int
    delta: float = 2.0
    gamma: float = 0.25

    def green(self, before: Tensor, tokens: Tensor) -> Tensor:
        """Whether tokens are green after others, as both are broadcast."""
        bits = token_bits(before + self.key * 2**32, tokens)
        return (bits & (2**24 - 1)) < self.gamma * 2**24

    def p_value(self, tokens: Sequence[int]) -> float:
        """By the exact binomial law over the distinct pairs of tokens, in place of the paper's normal one over all."""
        pairs = torch.tensor(sorted(set(zip(tokens[:-1], tokens[1:], strict=True))))
        hits = int(self.green(pairs[:, 0], pairs[:, 1]).sum())
        return float(binom.sf(hits - 1, len(pairs), self.gamma))


@torch.no_grad()
def draw_green(run: Run, n: int, length: int, seed: int, rule: GreenList) -> list[list[int]]:
    """Texts of `length` tokens, none of which ends earlier."""
    space, vocab = run.space, torch.arange(run.space.vocab[0])
    never = torch.tensor([*never_drawn(space), *([] if space.end_token is None else [space.end_token])])
    predict, state = predictor(run.modules, space.shape[0] + 1), None
    x, drawn = torch.full((n, 1), space.context_token), []
    for place in range(length):
        logits, state = predict(x, None, Cond(n), state)
        logits = logits.index_fill(1, never, -torch.inf) + rule.delta * rule.green(x, vocab)
        x = draw(narrow(logits, Cut()), Rng(seed).uniform(f"token/{place}", torch.arange(n)))[:, None]
        drawn.append(x)
    return torch.cat(drawn, 1).tolist()
