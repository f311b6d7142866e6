"""Embeds conditions: as a vector, with a learned null for every part, and as channels for parts on the grid of x."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Part, UserError


class PartEmbedding(nn.Module):
    """Embeds one part of a condition, to (B, width): the learned vector `null` where the part is absent."""

    def __init__(self, part: Part, width: int) -> None:
        super().__init__()
        self.kind = part.kind
        self.null = nn.Parameter(torch.randn(width) * 0.5)
        if part.kind == "number":
            self.net = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        elif part.kind == "label":
            self.table = nn.Embedding(len(part.classes), width)
            nn.init.normal_(self.table.weight, std=0.5)
        elif part.kind == "vector":
            self.net = nn.Sequential(nn.Linear(part.shape[0], width), nn.SiLU(), nn.Linear(width, width))
        else:  # prompt: ids 0 (padding) and 1 (unknown word) precede those of the words
            self.table = nn.Embedding(len(part.classes) + 2, width)
            nn.init.normal_(self.table.weight, std=0.5)

    def forward(self, value: Tensor, present: Tensor) -> Tensor:
        if self.kind == "number":
            e = self.net(value[:, None].float())
        elif self.kind == "vector":
            e = self.net(value.float())
        elif self.kind == "label":
            e = self.table(value)
        else:
            mask = (value != 0).unsqueeze(-1).to(self.null.dtype)  # (B, S, 1)
            e = (self.table(value) * mask).sum(1) / mask.sum(1).clamp_min(1).sqrt()
        return torch.where(present[:, None], e, self.null.to(e.dtype))


class Conditioning(nn.Module):
    """Sums the embeddings of the parts of `spec`: Cond -> (B, width). Zeros if there are no parts.

    Parts that are `aligned` with x have no vector: they are concatenated to x as channels (`aligned_fields`). Networks
    that do so pass `aligned=True`. Without it, UserError is raised for such parts, which would otherwise be ignored.
    """

    def __init__(self, spec: CondSpec, width: int, aligned: bool = False) -> None:
        super().__init__()
        self.width = width
        if aligned_parts(spec) and not aligned:
            names = ", ".join(aligned_parts(spec))
            raise UserError(
                f"This family cannot be conditioned on another image ({names}). Choose a family that can, such as "
                "flow, or remove the column from the metadata."
            )
        vectors = {k: p for k, p in spec.items() if p.kind != "aligned"}
        self.parts = nn.ModuleDict({f"part_{k}": PartEmbedding(p, width) for k, p in vectors.items()})
        self.register_buffer("nothing", torch.zeros(1, width), persistent=False)  # moves to the device

    def forward(self, cond: Cond) -> Tensor:
        if cond.toward is not None:
            other, share = cond.toward
            own, others = self(replace(cond, toward=None)), self(other)
            return torch.lerp(own, others, share[:, None].to(own.dtype))
        total: Tensor | None = None
        for key, net in self.parts.items():
            name = key.removeprefix("part_")
            e = net(cond.parts[name], cond.present[name])
            total = e if total is None else total + e
        if total is None:
            return self.get_buffer("nothing").expand(cond.size, -1)
        return total / math.sqrt(max(len(self.parts), 1))


def aligned_parts(spec: CondSpec) -> CondSpec:
    """The parts that lie on the grid of x, such as another image or an edge map."""
    return {k: p for k, p in spec.items() if p.kind == "aligned"}


def aligned_channels(spec: CondSpec, channels: int) -> int:
    """The number of channels of `aligned_fields` for x with so many channels: those of each aligned part that a network
    is told, and one that marks its presence."""
    return sum(told_channels(p, channels) + 1 for p in aligned_parts(spec).values())


def told_channels(part: Part, channels: int) -> int:
    """How many channels of an aligned part a network is told: all but what was before and its scale, if the part has
    the scale of each value."""
    return part.shape[0] - (2 * channels if part.scaled else 0)


def aligned_fields(cond: Cond, spec: CondSpec, x: Tensor) -> Tensor:
    """The aligned parts as channels to concatenate with x (B, C, *grid): (B, aligned_channels, *grid), x's dtype.

    Each part is followed by a channel of ones; where the part is absent, both are zero. Raises UserError if a part is
    on another grid than x, as happens if x consists of a codec's latents.
    """
    if cond.toward is not None:
        other, share = cond.toward
        own, others = aligned_fields(replace(cond, toward=None), spec, x), aligned_fields(other, spec, x)
        return torch.lerp(own, others, share.view(-1, *[1] * (x.dim() - 1)).to(x.dtype))
    out = [x[:, :0]]
    for name, part in aligned_parts(spec).items():
        if part.shape[1:] != x.shape[2:]:
            raise UserError(
                f"{name} has the grid {part.shape[1:]}, but a codec changed that of the data to {tuple(x.shape[2:])}. "
                "Train without the codec, or remove the column from the metadata."
            )
        present = cond.present[name].view(-1, *[1] * (x.dim() - 1)).to(x.dtype)  # (B, 1, ..., 1)
        told = cond.parts[name][:, : told_channels(part, x.shape[1])]
        out += [told.to(x.dtype) * present, present.expand(-1, 1, *x.shape[2:])]
    return torch.cat(out, 1)


def persisting(spec: CondSpec) -> tuple[str, Part] | None:
    """The part that holds what x was before, if there is one."""
    return next(((name, part) for name, part in spec.items() if part.persists), None)


def previous(cond: Cond, spec: CondSpec, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """What x (B, C, *grid) was before, and the scale by which it changes, (B,) or of each value (B, C, *grid); zero and
    1 for rows of which that is not known. None if no part persists."""
    if (found := persisting(spec)) is None:
        return None
    name, part = found
    present, channels = cond.present[name], x.shape[1]
    there = present.view(-1, *[1] * (x.dim() - 1))
    if part.scaled:
        before, scale = cond.parts[name][:, -2 * channels :].to(x.dtype).chunk(2, 1)
        before, scale = before * there.to(x.dtype), torch.where(there, scale, x.new_ones(()))
    else:
        before = cond.parts[name][:, -channels:].to(x.dtype) * there.to(x.dtype)
        scale = torch.where(present, x.new_tensor(part.std), x.new_ones(()))
    if cond.toward is None:
        return before, scale
    other, share = cond.toward
    rest = previous(other, spec, x)
    assert rest is not None
    return torch.lerp(before, rest[0], share.view(-1, *[1] * (x.dim() - 1)).to(x.dtype)), scale


class TimeEmbedding(nn.Module):
    """Embeds a scalar (B,) by Fourier features, to (B, width) (Tancik et al. 2020; fixed frequencies as in EDM)."""

    def __init__(self, width: int, features: int = 64, scale: float = 1.0) -> None:
        super().__init__()
        # Quantiles of N(0, scale) instead of random numbers, so that the buffer need not be saved.
        q = (torch.arange(features, dtype=torch.float64) + 0.5) / features
        self.register_buffer("frequency", (torch.erfinv(2 * q - 1) * math.sqrt(2) * scale).float(), persistent=False)
        self.net = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angle = 2 * math.pi * t[:, None].float() * self.get_buffer("frequency")
        return self.net(torch.cat([angle.cos(), angle.sin()], 1))
