"""A network over records of fixed positions, each of which holds tokens of its own: the columns of a table.

A residual network without attention, since a position means the same in every record and can have weights of its own.
Tokens that are in order, as the parts of a range of numbers, are told and predicted by cosines of their place in the
order (`cosines`), so that neighbours share what they learn and a few thousand rows are not learnt by heart; the others
have a free weight each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Slot
from afresh.engine.nets.conditioning import Conditioning

OUTSIDE = -1e9  # a logit of probability 0, which guidance can still compute with
DECAY = 4.0  # frequency from which the scale of cosines falls


def cosines(count: int, most: int) -> Tensor:
    """cos(pi k u) / (1 + k / DECAY) for k below `most` at the middles u of `count` equal parts of [0, 1], (count, K).

    With K = count they span every function of the parts (the discrete cosine transform, Ahmed et al. 1974). The scale
    makes slow changes quicker to learn than fast ones.
    """
    k = torch.arange(min(count, most), dtype=torch.float64)
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return (torch.cos(math.pi * k * u[:, None]) / (1 + k / DECAY)).float()


def features(slot: Slot, most: int) -> Tensor:
    """What each token of a slot is known by, (count, F): a one of its own, or cosines for those that are in order."""
    free = slot.count - slot.ordered
    if not slot.ordered:
        return torch.eye(free)
    return torch.block_diag(torch.eye(free), cosines(slot.ordered, most))


def log_frequencies(slot: Slot) -> Tensor:
    """(count,): the logarithm of each token's share in training, of which half an occurrence is added; 0 if it is not
    known."""
    if not slot.counts:
        return torch.zeros(slot.count)
    each = torch.tensor(slot.counts, dtype=torch.float64) + 0.5
    return (each / each.sum()).log().float()


class RecordBlock(nn.Module):
    """x + down(gelu(up(norm(x)))) over (B, width). `keep` (B, 3 width): factors of dropout, of what gelu returns and of
    what is added to x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        within, after = (1.0, 1.0) if keep is None else keep.split((2 * x.shape[1], x.shape[1]), 1)
        y: Tensor = x + after * self.down(within * F.gelu(self.up(self.norm(x))))
        return y


class RecordNet(nn.Module):
    """Tokens (B, T + 1), with the mask's id V where masked, to logits (B, T, V), OUTSIDE for tokens of other positions.

    With `targets` (B, T), -1 to ignore one: their summed cross-entropy in nats, (B,). `cosines`: the most that the
    ordered tokens of a position are told by. `keep`: factors of dropout for each block (RecordBlock).
    """

    def __init__(
        self, slots: Sequence[Slot], vocab: int, width: int, layers: int, embedding: int, cosines: int, conds: CondSpec
    ) -> None:
        super().__init__()
        self.slots, self.mask = tuple(slots), vocab
        self.counts = [s.count for s in slots]
        kinds = [features(s, cosines) for s in slots]
        for i, kind in enumerate(kinds):
            self.register_buffer(f"kind_{i}", kind, persistent=False)
        self.register_buffer("first", torch.tensor([s.first for s in slots]), persistent=False)
        self.register_buffer("count", torch.tensor(self.counts), persistent=False)
        self.tables = nn.ParameterList(nn.Parameter(0.5 * torch.randn(k.shape[1], embedding)) for k in kinds)
        self.hidden = nn.Parameter(0.5 * torch.randn(len(slots), embedding))  # the embedding of the mask
        self.into = nn.Linear(len(slots) * embedding, width)
        self.blocks = nn.ModuleList(RecordBlock(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.widths = [k.shape[1] for k in kinds]
        self.out = nn.Linear(width, sum(self.widths))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        # How frequent a token is, whatever the others are. From zero, the frequencies of rare tokens are not reached in
        # some thousand steps of an optimiser that bounds each: rows then have too many frequent values.
        self.bias = nn.Parameter(torch.cat([log_frequencies(s) for s in slots]))
        self.conditioning = Conditioning(conds, width) if conds else None

    def condition(self, cond: Cond) -> Tensor | None:
        """The vector that is added to the hidden state of a row, (B, width); None for an unconditional model."""
        return None if self.conditioning is None else self.conditioning(cond)

    def kind(self, position: int) -> Tensor:
        return self.get_buffer(f"kind_{position}")

    def embedded(self, tokens: Tensor) -> Tensor:
        """(B, T) ids -> (B, T * embedding)."""
        local = tokens - self.get_buffer("first")
        # The mask, and an id that a position does not hold, which says no more.
        local = torch.where((local < 0) | (local >= self.get_buffer("count")), self.get_buffer("count"), local)
        tables = (torch.cat([self.kind(i) @ w, self.hidden[i, None]]) for i, w in enumerate(self.tables))
        return torch.cat([F.embedding(local[:, i], table) for i, table in enumerate(tables)], 1)

    def forward(
        self, tokens: Tensor, c: Tensor | None, targets: Tensor | None = None, keep: Sequence[Tensor] = ()
    ) -> Tensor:
        h = self.into(self.embedded(tokens[:, 1:]))
        h = h if c is None else h + c
        for number, block in enumerate(self.blocks):
            h = block(h, keep[number] if keep else None)
        parts = self.out(self.norm(h)).split(self.widths, 1)
        biases = self.bias.split(self.counts)
        each = [z.float() @ self.kind(i).T + b for i, (z, b) in enumerate(zip(parts, biases, strict=True))]
        if targets is None:
            out = h.new_full((len(h), len(self.slots), self.mask), OUTSIDE, dtype=torch.float32)
            for i, (slot, logits) in enumerate(zip(self.slots, each, strict=True)):
                out[:, i, slot.first : slot.first + slot.count] = logits
            return out
        local = torch.where(targets < 0, -1, targets - self.get_buffer("first"))
        nats = [F.cross_entropy(z, local[:, i], ignore_index=-1, reduction="none") for i, z in enumerate(each)]
        return torch.stack(nats, 1).sum(1)
