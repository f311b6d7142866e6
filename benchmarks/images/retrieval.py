"""A judge of captions: which of 32 captions does a picture show? Two towers trained apart on real training pairs.

As CLIP (Radford et al. 2021), on frozen features: pictures by EfficientNet-Lite0, which had no part in any model,
captions by MiniLM, which a model may have been conditioned on. Only held-out captions are asked for and offered, so all
32 are new to the judge and to the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.engine.evaluation.estimate import Array, Estimate, mean

AMONG = 32
STEPS, BATCH, RATE, WIDTH, TEMPERATURE, DROP = 400, 256, 1e-3, 128, 0.1, 0.5


def caption_vectors(captions: Sequence[str]) -> Tensor:
    """(N, 384) float32 by MiniLM."""
    from afresh.data.text_encoder import open_model
    from afresh.data.text_encoder_source import MINILM, locate

    return open_model(locate(MINILM).folder).vectors(captions)[0]


class Tower(nn.Module):
    """Frozen features (B, D) to unit vectors (B, WIDTH)."""

    centre: Tensor
    spread: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", features.mean(0))
        self.register_buffer("spread", features.std(0) + 1e-3)
        self.net = nn.Sequential(
            nn.Dropout(DROP), nn.Linear(features.shape[1], 256), nn.SiLU(), nn.Dropout(DROP), nn.Linear(256, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.net((x - self.centre) / self.spread), dim=1)


class Retrieval:
    """Trained towers with the captions that are offered."""

    def __init__(self, pictures: Array, captions: Sequence[str], offered: Sequence[str], seed: int) -> None:
        """pictures: features (N, D) of real training pictures, with their captions; `offered`: captions kept apart."""
        if set(captions) & set(offered):
            raise ValueError("a caption that is offered was trained on")
        self.offered = sorted(set(offered))
        self.train_captions = list(captions)
        x, y = torch.from_numpy(pictures).float(), caption_vectors(captions)
        same = torch.tensor(np.unique(captions, return_inverse=True)[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.see, self.read = Tower(x), Tower(y)
            self._fit(x, y, same)
        self.see.eval()
        self.read.eval()
        self.vectors = y
        self.table = self.text(self.offered)

    def _fit(self, x: Tensor, y: Tensor, same: Tensor) -> None:
        towers = nn.ModuleList([self.see, self.read])
        optimiser = torch.optim.AdamW(towers.parameters(), RATE, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
        for _ in range(STEPS):
            rows = torch.randperm(len(x))[:BATCH]
            logits = self.see(x[rows]) @ self.read(y[rows]).T / TEMPERATURE
            twins = (same[rows][:, None] == same[rows][None]) & ~torch.eye(len(rows), dtype=torch.bool)
            logits = logits.masked_fill(twins, -1e4)  # a caption that occurs twice is not a wrong answer
            target = torch.arange(len(rows))
            loss = F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> Tensor:
        return self.read(caption_vectors(captions))

    @torch.no_grad()
    def found(self, pictures: Array, asked: Sequence[str]) -> Estimate:
        """How often the caption asked for is the nearest among 32: itself and 31 others of those offered.

        pictures: features (n, D). The mean over captions, since samples of one caption are not independent. Raises
        ValueError for a caption that is not offered.
        """
        place = {c: i for i, c in enumerate(self.offered)}
        if not set(asked) <= set(place):
            raise ValueError("only captions that the judge never saw are asked for")
        own = torch.tensor([place[c] for c in asked])
        close = self.see(torch.from_numpy(pictures).float()) @ self.table.T  # (n, captions)
        nearer = (close > close.gather(1, own[:, None])).sum(1).numpy()
        hit = hit_rate(nearer, len(self.offered))
        by_caption = {c: [h for h, a in zip(hit, asked, strict=True) if a == c] for c in set(asked)}
        return mean(np.array([np.mean(v) for v in by_caption.values()]))

    def copied(self, asked: Sequence[str]) -> np.ndarray:
        """Rows of the training pictures whose captions mean most nearly what is asked: what copying can reach."""
        wanted = F.normalize(caption_vectors(asked), dim=1)
        return (wanted @ F.normalize(self.vectors, dim=1).T).argmax(1).numpy()


def hit_rate(nearer: np.ndarray, captions: int) -> Array:
    """The chance (n,) that none of the `nearer` (n,) captions is among 31 drawn from the captions - 1 others.

    C(m - r, 31) / C(m, 31) with m = captions - 1: the mean over all draws, so that no draw has to be made.
    """
    m, k = captions - 1, AMONG - 1
    if m < k:
        raise ValueError(f"{AMONG} captions are needed, there are {captions}")
    i = np.arange(k)
    terms = (m - nearer[:, None] - i) / (m - i)  # prod_i (m - r - i) / (m - i)
    return np.clip(terms, 0.0, None).prod(1)
