"""The marking of texts whose tokens are drawn in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core.rng import Rng
from afresh.services.watermark.tournament import marked_rows
from afresh.services.watermark.watermark import Watermark, in_variants, variant_of


@dataclass(frozen=True)
class AnyOrder:
    """Texts with one watermark, and which of their positions (B, T) bool are drawn: other tokens were given.

    A token is marked only if its context of H tokens was drawn before it. In a random order of single positions that is
    one token in H + 1, so that a text needs about (H + 1)^2 times as many tokens as one that is drawn from left to
    right for as much evidence. With few positions at a time the share is a little smaller.
    """

    watermark: Watermark
    drawn: Tensor
    variants: Tensor  # (B,)
    seen: Sequence[set[int]]  # the keys of contexts that were used, of each text

    @classmethod
    def of(cls, watermark: Watermark, drawn: Tensor, rng: Rng, index: Tensor) -> AnyOrder:
        return cls(watermark, drawn, variant_of(rng, index).cpu(), [set() for _ in index])

    def select(self, rows: Tensor, first: int, last: int) -> AnyOrder:
        """The texts of some rows, in a window of positions, which are not drawn where there are none."""
        drawn = self.drawn[rows, first:last]
        drawn = F.pad(drawn, (0, last - first - drawn.shape[1]))
        return AnyOrder(self.watermark, drawn, self.variants[rows.cpu()], [self.seen[row] for row in rows.tolist()])

    def mark(self, p: Tensor, tokens: Tensor, hidden: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """The distributions p (N, V) of the tokens at the positions `wanted` (B, T), row by row, marked where they are
        to be, and the keys (N,) of their contexts in `tokens` (B, T), 0 where they are not marked. `hidden` (B, T):
        which tokens are not known."""
        keys = self.keys(tokens, hidden, wanted)
        marked = keys.nonzero()[:, 0]
        if not len(marked):
            return p, keys
        variants = self.variants[wanted.nonzero()[:, 0].cpu()[marked]]
        return marked_rows(p, marked, in_variants(keys[marked], variants), self.watermark.layers), keys

    def keys(self, tokens: Tensor, hidden: Tensor, wanted: Tensor) -> Tensor:
        """The keys that `mark` gives."""
        size, length = self.watermark.context, tokens.shape[1]
        known = F.pad((self.drawn & ~hidden).int().cumsum(1), (1, 0))  # (B, T + 1), before each position
        ready = torch.zeros_like(wanted)
        ready[:, size:] = known[:, size:length] - known[:, : max(0, length - size)] == size
        places = wanted.nonzero()
        among = (wanted & ready)[wanted].nonzero()[:, 0]  # of the places
        back = torch.arange(-size, 0, device=tokens.device)
        contexts = tokens[places[among, :1], places[among, 1:] + back].cpu()
        keys, taken = torch.zeros(len(places), dtype=torch.int64), set[tuple[int, int]]()
        found = self.watermark.context_keys(contexts).tolist()
        for at, row, key in zip(among.tolist(), places[among, 0].tolist(), found, strict=True):
            if key not in self.seen[row] and (row, key) not in taken:
                taken.add((row, key))
                keys[at] = key
        return keys

    def remember(self, keys: Tensor, wanted: Tensor, chosen: Tensor) -> None:
        """Use no context a second time of those positions `chosen` (B, T) among `wanted` whose tokens are kept."""
        used = chosen[wanted].cpu() & (keys != 0)
        for row, key in zip(wanted.nonzero()[:, 0].cpu()[used].tolist(), keys[used].tolist(), strict=True):
            self.seen[row].add(key)
