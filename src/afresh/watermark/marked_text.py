"""The marking of texts while their tokens are drawn one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from afresh.core.rng import Rng
from afresh.watermark.tournament import marked_rows
from afresh.watermark.watermark import Watermark, variant_of

NO_TOKEN = -1  # before the beginning of a text


class MarkedText:
    """What must be known of a text in order to mark its next token. `tokens`: its prompt.

    A token is marked if its context has been drawn as a whole and has not yet occurred in the text, its prompt
    included. Hence bits are never used twice, and the distribution of a text, on average over keys, is that of the
    model (Dathathri et al. 2024, repeated context masking); and texts that continue the same prompt do not all begin
    with the same token.
    """

    def __init__(self, watermark: Watermark, tokens: Sequence[int], rng: Rng, index: int) -> None:
        self.watermark, self.drawn = watermark, 0
        self.variant = int(variant_of(rng, torch.tensor([index]))[0])
        self.seen: set[int] = set()
        if len(tokens) > watermark.context:
            contexts = torch.tensor(tokens[:-1]).unfold(0, watermark.context, 1)
            self.seen.update(watermark.context_keys(contexts).tolist())

    def marks(self, key: int) -> bool:
        """Whether the next token is marked, whose context has this key. To be asked once for each token that is
        drawn."""
        self.drawn += 1
        if key in self.seen:
            return False
        self.seen.add(key)
        return self.drawn > self.watermark.context


def contexts_of(texts: Sequence[Sequence[int]], watermark: Watermark) -> Tensor:
    """The last tokens of texts, (B, context) int64."""
    size = watermark.context
    return torch.tensor([[*[NO_TOKEN] * (size - len(text)), *text[-size:]] for text in texts])


def mark(p: Tensor, contexts: Tensor, texts: Sequence[MarkedText]) -> Tensor:
    """The distributions p (B, V) of the next tokens of texts with one watermark, whose last tokens are `contexts`
    (B, context), marked where they are to be. p may be changed in place."""
    watermark = texts[0].watermark
    keys = watermark.context_keys(contexts.cpu())
    rows = [row for row, (text, key) in enumerate(zip(texts, keys.tolist(), strict=True)) if text.marks(key)]
    return mark_rows(p, rows, keys, texts)


def mark_rows(p: Tensor, rows: Sequence[int], keys: Tensor, texts: Sequence[MarkedText]) -> Tensor:
    """The distributions p (B, V) of tokens of the texts whose contexts have the `keys` (B,), with those of `rows`
    marked."""
    if not rows:
        return p
    variants = torch.tensor([text.variant for text in texts])
    if len(rows) < len(texts):
        keys, variants = keys[rows], variants[rows]
    return marked_rows(p, rows, keys, variants, texts[0].watermark.layers)
