"""The marking of texts whose tokens are drawn in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core.rng import Rng
from afresh.watermark.marked_text import MarkedText, mark_rows
from afresh.watermark.watermark import Watermark

Keys = list[bytes | None]


@dataclass(frozen=True)
class AnyOrder:
    """Texts with one watermark, and which of their positions (B, T) bool are drawn: other tokens were given.

    A token is marked only if its context of H tokens was drawn before it. In a random order of single positions that is
    one token in H + 1, so that a text needs about (H + 1)^2 times as many tokens as one that is drawn from left to
    right for as much evidence. With few positions at a time the share is a little smaller.
    """

    texts: Sequence[MarkedText]
    drawn: Tensor

    @classmethod
    def of(cls, watermark: Watermark, drawn: Tensor, rng: Rng, index: Tensor) -> AnyOrder:
        return cls([MarkedText(watermark, (), rng, i) for i in index.tolist()], drawn)

    def select(self, rows: Tensor, first: int, last: int) -> AnyOrder:
        """The texts of some rows, in a window of positions, which are not drawn where there are none."""
        drawn = self.drawn[rows, first:last]
        return AnyOrder([self.texts[row] for row in rows.tolist()], F.pad(drawn, (0, last - first - drawn.shape[1])))

    def keys(self, tokens: Tensor, hidden: Tensor, wanted: Tensor) -> Keys:
        """For each of the positions `wanted` (B, T), row by row, the key of its context in `tokens` (B, T), or None if it
        is not marked. `hidden` (B, T): which tokens are not known."""
        size, length = self.texts[0].watermark.context, tokens.shape[1]
        known = F.pad((self.drawn & ~hidden).int().cumsum(1), (1, 0))  # (B, T + 1), before each position
        ready = torch.zeros_like(wanted)
        ready[:, size:] = known[:, size:length] - known[:, : max(0, length - size)] == size
        rows, taken, out = tokens.tolist(), set[tuple[int, bytes]](), Keys()
        for (row, place), whole in zip(wanted.nonzero().tolist(), ready[wanted].tolist(), strict=True):
            key = self.texts[row].watermark.context_key(rows[row][place - size : place]) if whole else None
            if key is not None and (key in self.texts[row].seen or (row, key) in taken):
                key = None
            if key is not None:
                taken.add((row, key))
            out.append(key)
        return out

    def mark(self, p: Tensor, keys: Keys, wanted: Tensor) -> Tensor:
        """The distributions p (N, V) of the tokens at the positions `wanted`, marked where there is a key."""
        return mark_rows(p, keys, [self.texts[row] for row in wanted.nonzero()[:, 0].tolist()])

    def remember(self, keys: Keys, wanted: Tensor, chosen: Tensor) -> None:
        """Use no context a second time of those positions `chosen` (B, T) among `wanted` whose tokens are kept."""
        for (row, _), key, kept in zip(wanted.nonzero().tolist(), keys, chosen[wanted].tolist(), strict=True):
            if kept and key is not None:
                self.texts[row].seen.add(key)
