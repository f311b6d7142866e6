"""The marking of texts while their tokens are drawn, one after the other or in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core.rng import Rng
from afresh.engine.nets.kernels.build import library
from afresh.engine.nets.kernels.functions import call_as
from afresh.services.watermark.watermark import Watermark, in_variants, marked_rows, variant_of

NO_TOKEN = -1  # before the beginning of a text


class MarkedText:
    """What must be known of a text in order to mark its next token.

    A token is marked if its context has been drawn as a whole and has not yet occurred in the text, its prompt
    included. Hence bits are never used twice, and the distribution of a text, on average over keys, is that of the
    model (Dathathri et al. 2024, repeated context masking); and texts that continue the same prompt do not all begin
    with the same token.
    """

    def __init__(self, watermark: Watermark, tokens: Sequence[int], variant: int, table: Tensor) -> None:
        self.watermark, self.variant, self.drawn = watermark, variant, 0
        self.seen: set[int] = set()
        self.table, self.pointer = table, table.data_ptr()  # in place of the two above for the kernel
        if len(tokens) > watermark.context:
            contexts = torch.tensor(tokens[:-1]).unfold(0, watermark.context, 1).contiguous()
            contexts_to_mark(contexts, [self] * len(contexts))
            self.drawn = 0
            self.table[0] = 0

    @classmethod
    def of(
        cls, watermark: Watermark, prompts: Sequence[Sequence[int]], length: int, rng: Rng, index: Tensor
    ) -> list[MarkedText]:
        """Texts that begin with prompts, each of which up to `length` tokens follow. `index` (B,): their numbers."""
        variants = variant_of(rng, index).cpu()
        slots = 2 << (max(map(len, prompts), default=0) + length).bit_length()  # at least half of them stay empty
        tables = torch.zeros(len(prompts), 3 + slots, dtype=torch.int64)
        tables[:, 1], tables[:, 2] = in_variants(torch.zeros_like(variants), variants), slots - 1
        return [cls(watermark, *text) for text in zip(prompts, variants.tolist(), tables, strict=True)]


def contexts_of(texts: Sequence[Sequence[int]], watermark: Watermark) -> Tensor:
    """The last tokens of texts, (B, context) int64."""
    size = watermark.context
    return torch.tensor([[*[NO_TOKEN] * (size - len(text)), *text[-size:]] for text in texts])


def contexts_to_mark(contexts: Tensor, texts: Sequence[MarkedText]) -> tuple[Tensor, Tensor]:
    """The rows (R,) of texts with one watermark whose next tokens are marked, and the keys of their contexts in their
    variants (R,). `contexts` (B, context): their last tokens. To be asked once for each token that is drawn."""
    watermark, n = texts[0].watermark, len(texts)
    if library() is not None:
        rows, keys, count = (torch.empty(size, dtype=torch.int64) for size in (n, n, 1))
        tables = torch.tensor([text.pointer for text in texts])
        call_as("contexts_to_mark", contexts, tables, watermark.words, rows, keys, count, n, watermark.context)
        most = int(count)
        return rows[:most], keys[:most]
    found = watermark.context_keys(contexts).tolist()
    marked = list[int]()
    for row, (text, key) in enumerate(zip(texts, found, strict=True)):
        text.drawn += 1
        if key not in text.seen:
            text.seen.add(key)
            if text.drawn > watermark.context:
                marked.append(row)
    variants = torch.tensor([texts[row].variant for row in marked], dtype=torch.int64)
    return torch.tensor(marked, dtype=torch.int64), in_variants(torch.tensor([found[r] for r in marked]), variants)


def mark(p: Tensor, contexts: Tensor, texts: Sequence[MarkedText]) -> Tensor:
    """The distributions p (B, V) of the next tokens of texts with one watermark, whose last tokens are `contexts`
    (B, context), marked where they are to be. p may be changed in place."""
    rows, keys = contexts_to_mark(contexts.cpu(), texts)
    return marked_rows(p, rows, keys, texts[0].watermark.layers) if len(rows) else p


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
