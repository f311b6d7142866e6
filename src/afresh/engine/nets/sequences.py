"""Networks between sequences of tokens and a few vectors of latents: one reads a sequence, the other writes it.

Both are Transformers (nets/transformer.py). The reader attends in both directions, and its latents are the states of
slots that precede the sequence. The writer is causal, and the latents are its first positions, before those of the
tokens (the memory of Li et al. 2020, "Optimus", sec. 3.2), so that the engine that decodes tokens draws from it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Batch, Space, UserError
from afresh.engine.nets.conv import start
from afresh.engine.nets.decoding import decode
from afresh.engine.nets.kernels.decode import Kind
from afresh.engine.nets.transformer import Decoder, DecoderShape

LOG_VAR = -3.0  # of the posterior before training: what is written depends on the latents from the first step on


def sequential(space: Space) -> bool:
    """Whether examples are records that are drawn as a whole. Of others, such as conversations, a part is given."""
    return space.filler is not None


@dataclass(frozen=True)
class Sequences:
    """Tokens (B, T) int64; row b has its first counts[b] (B,); the others are padding."""

    tokens: Tensor
    counts: Tensor

    @staticmethod
    def of(batch: Batch) -> Sequences:
        """The sequences of a batch, without the token of context, up to the last token that is predicted."""
        tokens = batch.x[:, 1:]
        if batch.mask is None:
            return Sequences(tokens, torch.full((len(tokens),), tokens.shape[1], device=tokens.device))
        place = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        return Sequences(tokens, (place * batch.mask).amax(1))

    @staticmethod
    def whole(tokens: Tensor, end: int) -> Sequences:
        """Rows (B, T) up to the first `end`, which is part of them."""
        ended = F.pad(tokens.long(), (0, 1), value=end) == end
        return Sequences(F.pad(tokens.long(), (0, 1), value=end), ended.int().argmax(1) + 1)

    def after(self, lead: Tensor) -> Tensor:
        """The tokens (B, 1 + L + T) behind `lead` (1 + L,), at the end of each row; the first of `lead` fills the
        beginning."""
        rows, width = self.tokens.shape[0], len(lead) + self.tokens.shape[1]
        both = torch.cat([lead.expand(rows, -1), self.tokens], 1)
        place = torch.arange(width, device=both.device) - (self.tokens.shape[1] - self.counts)[:, None]
        return both.gather(1, place.clamp_min(0))


def transformer(vocab: int, width: int, layers: int, context: int, *, causal: bool, separator: int = -1) -> Decoder:
    """A Transformer with heads of 64, of 32 if it is narrow, or one head. Raises UserError for an odd width."""
    if width % 2:
        raise UserError(f"The width of a network over tokens must be even. Given: {width}.")
    size = 64 if width >= 192 and width % 64 == 0 else 32
    heads = width // size if width % size == 0 else 1
    mlp = -(-width * 8 // 3 // 32) * 32
    shape = DecoderShape(
        vocab, width, layers, heads, heads, mlp, context, causal=causal, separator=separator, tied=not causal
    )
    return Decoder(shape, {})


class SequenceEncoder(nn.Module):
    """Sequences and c (B, cond) -> mean and log variance of the latents, (B, channels * slots) each, float32.

    With `cond` 0 there are no conditions, and c is None.
    """

    last: nn.Linear

    def __init__(
        self, space: Space, cond: int, channels: int, slots: int, width: int, layers: int, log_var: float = LOG_VAR
    ) -> None:
        super().__init__()
        vocab = space.vocab[0]
        # The first new id marks the beginning, before which nothing is attended to; the others are the slots.
        self.net = transformer(
            vocab + 1 + slots, width, layers, space.shape[0] + 1 + slots, causal=False, separator=vocab
        )
        nn.init.normal_(self.net.embedding.weight, std=0.5)
        self.condition = start(nn.Linear(cond, width, bias=False), 1) if cond else None
        self.last = start(nn.Linear(width, 2 * channels), 1)
        nn.init.constant_(self.last.bias[channels:], log_var)
        self.register_buffer("lead", torch.arange(vocab, vocab + 1 + slots), persistent=False)

    def forward(self, x: Sequences, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lead = self.get_buffer("lead")
        tokens, width = x.after(lead), len(lead) - 1
        h = self.net.hidden(tokens, None if self.condition is None else self.condition(c))
        first = tokens.shape[1] - width - x.counts  # of the slots
        place = first[:, None] + torch.arange(width, device=tokens.device)
        slots = h.gather(1, place[:, :, None].expand(-1, -1, h.shape[2]))
        mean, log_var = self.last(slots).float().mT.chunk(2, 1)
        return mean.flatten(1), log_var.flatten(1)


class SequenceDecoder(nn.Module):
    """z (B, channels, slots), c (B, cond) and tokens (B, T), the first of which is that of context -> the states that
    predict the tokens after them. With `cond` 0 there are no conditions, and c is None."""

    first: nn.Linear

    def __init__(self, space: Space, cond: int, channels: int, slots: int, width: int, layers: int) -> None:
        super().__init__()
        self.slots, self.context = slots, space.shape[0]
        self.end, self.filler = space.special["end"], space.special["filler"]
        self.net = transformer(space.vocab[0], width, layers, space.shape[0] + slots, causal=True)
        self.first = start(nn.Linear(channels, width), 1)
        self.position = nn.Parameter(torch.randn(slots, width) * 0.5)
        self.condition = start(nn.Linear(cond, width, bias=False), 1) if cond else None

    def divided(self, z: Tensor) -> Tensor:
        """Latents (B, channels * slots) as (B, channels, slots)."""
        return z.view(len(z), -1, self.slots)

    def own(self, c: Tensor | None, z: Tensor) -> Tensor:
        """What the condition adds to every embedding, (B, width)."""
        return z.new_zeros(len(z), self.net.shape.width) if self.condition is None else self.condition(c)

    def prefix(self, z: Tensor, c: Tensor | None) -> Tensor:
        """What the slots add to their embeddings, (B, slots, width)."""
        return self.first(z.mT) + self.position + self.own(c, z)[:, None]

    def hidden(self, z: Tensor, c: Tensor | None, tokens: Tensor) -> Tensor:
        """States (B, T, width)."""
        prefix, own = self.prefix(z, c), self.own(c, z)[:, None].expand(-1, tokens.shape[1], -1)
        lead = tokens.new_full((len(tokens), self.slots), self.end)
        return self.net.hidden(torch.cat([lead, tokens], 1), torch.cat([prefix, own], 1))[:, self.slots :]

    def nats(self, z: Tensor, c: Tensor | None, tokens: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of each of the targets (B, T), 0 where it is -1 and does not count, (B, T)."""
        return self.net.token_nats(self.hidden(z, c, tokens).contiguous(), targets)

    def step(
        self, z: Tensor, c: Tensor | None, tokens: Tensor, counts: Tensor | None, state: Any, kind: Kind
    ) -> tuple[Tensor, Any]:
        """The logits (B, V) after the first counts[b] (None: all) of tokens (B, T), which continue those of `state`;
        None: which begin. Returns the new state as well."""
        if state is None:
            lead = tokens.new_full((len(tokens), 1), self.end)
            for added in self.prefix(z, c).unbind(1):
                _, state = decode(self.net, lead, None, added, state, self.context + self.slots + 1, kind)
        return decode(self.net, tokens, counts, self.own(c, z), state, self.context + self.slots + 1, kind)


def drop_tokens(tokens: Tensor, drop: Tensor, filler: int) -> Tensor:
    """Tokens (B, T) with `filler` where `drop` (B, T) is true, but for the first, which is that of context."""
    return torch.where(F.pad(drop[:, 1:], (1, 0), value=False), filler, tokens)


@dataclass(frozen=True)
class SequenceShape:
    """Sizes of the networks of an autoencoder of sequences: `channels` numbers at each of `slots` positions; `width` of
    both Transformers, and `blocks` of the one that writes; the one that reads has half as many."""

    channels: int
    slots: int
    width: int
    blocks: int


def sequence_networks(
    space: Space, shape: SequenceShape, cond: int = 0
) -> dict[str, SequenceEncoder | SequenceDecoder]:
    """The modules `encoder` and `decoder`."""
    sizes = (cond, shape.channels, shape.slots, shape.width)
    return {
        "encoder": SequenceEncoder(space, *sizes, layers=-(-shape.blocks // 2)),
        "decoder": SequenceDecoder(space, *sizes, layers=shape.blocks),
    }
