"""Conditions to one vector, with a learned null for every part."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Part


class PartEmbedding(nn.Module):
    """One part of a condition to (B, width); the learned `null` row where it is absent."""

    def __init__(self, part: Part, width: int) -> None:
        super().__init__()
        self.kind = part.kind
        self.null = nn.Parameter(torch.randn(width) * 0.5)
        if part.kind == "number":
            self.net = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        elif part.kind == "label":
            self.table = nn.Embedding(len(part.classes), width)
            nn.init.normal_(self.table.weight, std=0.5)
        else:  # prompt: ids 0 (padding) and 1 (unknown word) stand before the words
            self.table = nn.Embedding(len(part.classes) + 2, width)
            nn.init.normal_(self.table.weight, std=0.5)

    def forward(self, value: Tensor, present: Tensor) -> Tensor:
        if self.kind == "number":
            e = self.net(value[:, None].float())
        elif self.kind == "label":
            e = self.table(value)
        else:
            mask = (value != 0).unsqueeze(-1).to(self.null.dtype)  # (B, S, 1)
            e = (self.table(value) * mask).sum(1) / mask.sum(1).clamp_min(1).sqrt()
        return torch.where(present[:, None], e, self.null.to(e.dtype))


class Conditioning(nn.Module):
    """Sum over the parts of `spec`: Cond -> (B, width). No parts: zeros."""

    def __init__(self, spec: CondSpec, width: int) -> None:
        super().__init__()
        self.width = width
        self.parts = nn.ModuleDict({f"part_{k}": PartEmbedding(p, width) for k, p in spec.items()})
        self.register_buffer("nothing", torch.zeros(1, width), persistent=False)  # so that it is on the device

    def forward(self, cond: Cond) -> Tensor:
        total: Tensor | None = None
        for key, net in self.parts.items():
            name = key.removeprefix("part_")
            e = net(cond.parts[name], cond.present[name])
            total = e if total is None else total + e
        if total is None:
            return self.get_buffer("nothing").expand(cond.size, -1)
        return total / math.sqrt(max(len(self.parts), 1))


class TimeEmbedding(nn.Module):
    """Fourier features of a scalar (B,) to (B, width) (Tancik et al. 2020; fixed frequencies as in EDM)."""

    def __init__(self, width: int, features: int = 64, scale: float = 1.0) -> None:
        super().__init__()
        # Fixed, spread like N(0, scale) by quantiles, so that no random buffer need be stored.
        q = (torch.arange(features, dtype=torch.float64) + 0.5) / features
        self.register_buffer("frequency", (torch.erfinv(2 * q - 1) * math.sqrt(2) * scale).float(), persistent=False)
        self.net = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angle = 2 * math.pi * t[:, None].float() * self.get_buffer("frequency")
        return self.net(torch.cat([angle.cos(), angle.sin()], 1))
