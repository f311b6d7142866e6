"""The baseline of the language benchmarks: a plain PyTorch GPT in nanoGPT's published CPU configuration.

4 layers, 4 heads, 128 wide, context 64, batch 12, no dropout, 2,000 steps of AdamW (rate 1e-3 to 1e-4 by a cosine,
100 steps of warm-up, betas 0.9 and 0.99, decay 0.1, clipping 1.0) in float32. Karpathy's README states about 1.88
on random windows; over the full held-out split it ends near 1.89 to 1.90 nats a character.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmarks.common.processes import answer
from torch import Tensor, nn

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, STEPS = 4, 4, 128, 64, 12, 2000


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class NanoGPT(nn.Module):
    """(B, T) ids -> (B, T, vocab) logits; the head shares the embedding's weights."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocab, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                scale = 0.02 / math.sqrt(2 * LAYERS) if name.endswith(("out.weight", "down.weight")) else 0.02
                nn.init.normal_(p, std=scale)

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x) + self.place.weight[: x.shape[1]]
        return self.norm(self.blocks(h)) @ self.token.weight.T


@dataclass(frozen=True)
class Ask:
    text: str  # a path


@dataclass(frozen=True)
class Result:
    """Seconds of training alone, and the loss over the whole held-out split in nats a character."""

    seconds: float
    loss: float


def rate(step: int) -> float:
    if step < 100:
        return 1e-3 * (step + 1) / 101
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - 100) / (STEPS - 100))) * 9e-4


def train(text: str, seed: int = 1337, steps: int = STEPS) -> Result:
    """Train on the first nine tenths of `text`, judge on the rest."""
    torch.manual_seed(seed)
    letters = sorted(set(text))
    ids = torch.tensor([letters.index(c) for c in text])
    cut = int(0.9 * len(ids))
    model = NanoGPT(len(letters))
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    start = time.perf_counter()
    for step in range(steps):
        places = torch.randint(cut - CONTEXT, (BATCH,))
        x = torch.stack([ids[i : i + CONTEXT] for i in places])
        y = torch.stack([ids[i + 1 : i + 1 + CONTEXT] for i in places])
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - start
    return Result(seconds, full_loss(model, ids, cut))


@torch.no_grad()
def full_loss(model: NanoGPT, ids: Tensor, cut: int) -> float:
    """Mean cross-entropy over every character from `cut` on, in windows of CONTEXT that do not overlap."""
    count = (len(ids) - cut) // CONTEXT
    x = ids[cut - 1 : cut - 1 + count * CONTEXT].view(count, CONTEXT)
    y = ids[cut : cut + count * CONTEXT].view(count, CONTEXT)
    total = sum(
        float(F.cross_entropy(model(a).flatten(0, 1), b.flatten(), reduction="sum"))
        for a, b in zip(x.split(256), y.split(256), strict=True)
    )
    rest = len(ids) - cut - count * CONTEXT
    if rest:
        logits = model(ids[-rest - 1 : -1][None])
        total += float(F.cross_entropy(logits[0], ids[-rest:], reduction="sum"))
    return total / (len(ids) - cut)


if __name__ == "__main__":
    answer(Ask, lambda ask, folder: train(Path(ask.text).read_text()))
