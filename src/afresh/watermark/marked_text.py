"""The marking of a text while its tokens are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from afresh.core.rng import Rng
from afresh.watermark.tournament import marked_rows
from afresh.watermark.watermark import Watermark, as_numbers, variant_of


class MarkedText:
    """What must be known of a text in order to mark its next token. `tokens`: its prompt.

    A token is marked if its context has been drawn as a whole and has not yet occurred in the text, its prompt
    included. Hence bits are never used twice, and the distribution of a text, on average over keys, is that of the
    model (Dathathri et al. 2024, repeated context masking); and texts that continue the same prompt do not all begin
    with the same token.
    """

    def __init__(self, watermark: Watermark, tokens: Sequence[int], rng: Rng, index: int) -> None:
        self.watermark, self.prompt = watermark, len(tokens)
        self.variant = int(variant_of(rng, torch.tensor([index]))[0])
        size = watermark.context
        self.seen = {watermark.context_key(tokens[end - size : end]) for end in range(size, len(tokens))}

    def next_key(self, tokens: Sequence[int]) -> bytes | None:
        """The key of the context of the token that follows `tokens`, prompt included; None if it is not marked. To be
        called once for each token that is drawn."""
        size = self.watermark.context
        if len(tokens) < size:
            return None
        key = self.watermark.context_key(tokens[-size:])
        if key in self.seen:
            return None
        self.seen.add(key)
        return key if len(tokens) - self.prompt >= size else None


def mark(p: Tensor, texts: Sequence[MarkedText], tokens: Sequence[Sequence[int]]) -> Tensor:
    """The distributions p (B, V) of the next token of texts with one watermark, which have the `tokens` so far, with
    those rows marked that are to be. p may be changed in place."""
    return mark_rows(p, [text.next_key(before) for text, before in zip(texts, tokens, strict=True)], texts)


def mark_rows(p: Tensor, keys: Sequence[bytes | None], texts: Sequence[MarkedText]) -> Tensor:
    """The distributions p (B, V) of tokens of the texts, marked where there is the key of a context."""
    rows = [row for row, key in enumerate(keys) if key is not None]
    if not rows:
        return p
    contexts = as_numbers([key for key in keys if key is not None])
    variants = torch.tensor([texts[row].variant for row in rows])
    return marked_rows(p, rows, contexts, variants, texts[0].watermark.layers)
