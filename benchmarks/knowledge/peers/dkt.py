"""Deep knowledge tracing (Piech et al. 2015): an LSTM over pairs of an exercise and an outcome.

Departs from the paper in that what is asked is an exercise and not only its skill. It does not see the time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from afresh.domains.exercises.knowledge.answers import Answers, Array, Predictor


class Tracing(nn.Module):
    """Pairs of exercise and outcome (B, T) and the exercises asked (B, T) to logits of a right answer (B, T)."""

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.seen, self.asked = nn.Embedding(2 * items + 1, width), nn.Embedding(items, width)
        self.memory = nn.LSTM(width, width, batch_first=True)
        self.answer = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, seen: Tensor, asked: Tensor) -> Tensor:
        h, _ = self.memory(self.seen(seen))
        return self.answer(torch.cat([h, self.asked(asked)], -1))[..., 0]


def inputs(a: Answers, items: int) -> tuple[Tensor, Tensor, Tensor]:
    pairs = np.concatenate([[2 * items], 2 * a.items[:-1] + a.right[:-1]])
    return torch.from_numpy(pairs), torch.from_numpy(a.items), torch.from_numpy(a.right).float()


def fit(
    train: Sequence[Answers], items: int, seconds: float, width: int = 64, batch: int = 32, seed: int = 0
) -> Predictor:
    """Trained for so many seconds; histories have the same length."""
    torch.manual_seed(seed)
    net = Tracing(items, width)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    rng, begun = np.random.default_rng(seed), time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * max(0.02, 1 - spent / seconds)
        rows = [inputs(train[i], items) for i in rng.integers(len(train), size=batch)]
        seen, asked, right = (torch.stack(part) for part in zip(*rows, strict=True))
        loss = nn.functional.binary_cross_entropy_with_logits(net(seen, asked), right)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    @torch.no_grad()
    def predict(a: Answers) -> Array:
        seen, asked, _ = inputs(a, items)
        return net(seen[None], asked[None])[0].sigmoid().double().numpy()

    return predict
