"""Prompts of encoders of texts: a text to continue, a message to answer, and texts with holes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afresh.core import Encoder, Item, Prompt, Space, UserError
from afresh.data.text.chat import Turns

HOLE = re.compile(r"\[\[(\d+)\]\]")


def hole_pieces(text: str, example: str = "") -> list[str | int]:
    """The texts around holes [[N]], and the N: text, N, text, N, ..., text. Raises UserError if there is no hole."""
    pieces = HOLE.split(text)
    if len(pieces) == 1:
        raise UserError(f"No hole in {text!r}: write [[N]] where N tokens are missing{example}.")
    return [p if i % 2 == 0 else int(p) for i, p in enumerate(pieces)]


def token_ids(ids: Sequence[int], space: Space) -> Tensor:
    """The ids of a prompt, (length,) int64, without the opening of a document, which precedes every prompt anyhow.
    Raises UserError for one that is not in the vocabulary."""
    if wrong := [i for i in ids if not 0 <= i < space.vocab[0]]:
        raise UserError(f"Token ids are from 0 to {space.vocab[0] - 1:,} here. Given: {wrong[0]:,}.")
    opens = space.opening is not None and tuple(ids[:1]) == space.lead
    return torch.tensor(ids[1:] if opens else ids, dtype=torch.int64)


@dataclass(frozen=True)
class TextPrompts:
    """The prompts of an encoder of texts, each of which is a document that `end` ends, or a conversation."""

    encoder: Encoder
    contained = False
    writes = True
    reply_length = None

    @property
    def converses(self) -> bool:
        return self.encoder.space.records

    def beginnings(
        self,
        prompt: Prompt,
        count: int = 1,
        *,
        turns: Turns | None = None,
        strength: float | None = None,
        seed: int = 0,
    ) -> list[Tensor]:
        """The same ids (length,) int64 for each sample. Raises UserError for an id that is not in the vocabulary."""
        return [self.ids(prompt, turns)] * count

    def ids(self, prompt: Prompt, turns: Turns | None = None) -> Tensor:
        if not isinstance(prompt, str):
            return token_ids(prompt, self.encoder.space)
        if turns is not None:
            return self.encoder.encode([Item(prompt, turns=(*turns, ("user", prompt)))]).x.long()
        return self.encoder.encode([Item(prompt)]).x[:-1].long() if prompt else torch.zeros(0, dtype=torch.int64)

    def with_holes(self, text: str, space: Space) -> Tensor:
        """Raises UserError for conversations, a text without a hole, with a hole at its end, or with a hole longer than
        the context."""
        if self.converses:
            raise UserError("`infill` fills holes in a text; this model makes conversations. Leave it out.")
        pieces = hole_pieces(text, ", as in 'A [[5]] day'")
        if not pieces[-1]:
            raise UserError("`infill` cannot end with a hole. To continue a text, use `prompt` and `length`.")
        sizes = [n for n in pieces if isinstance(n, int)]
        if not all(1 <= n <= space.shape[0] for n in sizes):
            raise UserError(f"A hole has 1 to {space.shape[0]} tokens here (the context). Given: {sizes}.")
        return torch.cat([torch.full((p,), -1) if isinstance(p, int) else self.ids(p) for p in pieces])

    def prompt_text(self, ids: Tensor) -> str:
        """The text without special tokens."""
        ends = (ids == self.encoder.space.special["end"]).nonzero()[:, 0] + 1
        return "".join(self.encoder.decode(part)[0] for part in ids.tensor_split(ends) if len(part))

    def prompt_in(self, ids: Tensor) -> Tensor:
        """All of the stretch."""
        return ids

    def keeps(self, value: Any, prompt: str) -> bool:
        """Always, because a text follows its prompt."""
        return True
