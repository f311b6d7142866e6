"""Fill-in-the-middle: documents rearranged so that an autoregressive model learns to fill a gap.

Bavarian et al. 2022, "Efficient training of language models to fill in the middle": a document is cut at two random
characters into prefix, middle and suffix, and presented as prefix, suffix, middle (PSM) or suffix, prefix, middle
(SPM). Windows are rearranged when they are drawn for training ("context level" in the paper), because a window of a
rearranged document seldom contains all three parts. Every epoch thereby shows other middles, and held-out data is never
rearranged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Batch
from afresh.core.rng import Rng
from afresh.data.text.tokenizer import Ids, Tokenizer

MARKS = ("fim_prefix", "fim_suffix", "fim_middle")  # written <|fim_prefix|>, as in Qwen2.5-Coder
SHORTEST = 16  # tokens; shorter parts of documents are not rearranged
PIECES = 16  # documents of one window that may be rearranged; later ones are not
EXTRA = 4  # tokens that are added: the marks, and the end of the middle


@dataclass(frozen=True)
class FillIn:
    """Rearranges a share `rate` of the documents in each window, half of them PSM, half SPM."""

    tokenizer: Tokenizer
    rate: float

    def __call__(self, batch: Batch, rng: Rng) -> Batch:
        """The batch with windows x (B, T + 1) rearranged; tokens that no longer fit are left out at their ends.

        The random numbers depend on the draws, so that a window does not depend on its batch. Marks are not targets,
        because they are always given, and neither is padding.
        """
        u = rng.uniform("fim", batch.index, (PIECES, 4)).numpy()  # (B, PIECES, 4)
        x = batch.x.numpy()
        targets = torch.ones_like(batch.x[:, 1:], dtype=torch.bool) if batch.mask is None else batch.mask
        rows = [self.window(row, int(n), v) for row, n, v in zip(x, targets.sum(1), u, strict=True)]
        windows, mask = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        return replace(batch, x=windows, mask=mask)

    def window(
        self, row: NDArray[np.int64], n: int, u: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rearrange one window (T + 1,) with n targets. Returns the window and the mask (T,) of its targets."""
        end, size = self.tokenizer.special["end"], len(row) - 1
        out = np.full(size + 1, end, dtype=row.dtype)
        mask = np.zeros(size, dtype=bool)
        out[0], used = row[0], 0
        ends = np.flatnonzero(row[1 : n + 1] == end) + 1
        cuts = [0, *ends.tolist()] if len(ends) and ends[-1] == n else [0, *ends.tolist(), n]
        for i, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False)):
            piece, room = row[1 + a : 1 + b].astype(np.int32), size - used
            body = piece[:-1] if piece[-1] == end else piece
            rearranged = None
            if i < PIECES and min(len(body), room - EXTRA) >= SHORTEST and u[i, 0] < self.rate:
                rearranged = self.arrange(body, room, u[i, 1:])
            if rearranged is not None and i == 0:
                out[0] = end  # the token before a document
            ids = (piece if rearranged is None else rearranged)[:room]
            out[1 + used : 1 + used + len(ids)] = ids
            mask[used : used + len(ids)] = ~np.isin(ids, [self.tokenizer.special[m] for m in MARKS])
            used += len(ids)
        return out, mask

    def arrange(self, body: Ids, room: int, u: NDArray[np.float32]) -> Ids | None:
        """A part of a document as three parts with marks, in at most `room` tokens. None if it begins or ends within a
        character, or if the middle alone does not fit.

        If it is too long, the end of the suffix is left out, then the beginning of the prefix. u (3,): uniform numbers
        for the order and the two cuts.
        """
        parts = self.parts(body[: room - EXTRA], u[1], u[2])
        if parts is None or len(parts[1]) + EXTRA > room:
            return None
        prefix, middle, suffix = parts
        excess = max(0, len(prefix) + len(middle) + len(suffix) + EXTRA - room)
        dropped = min(excess, len(suffix))
        suffix, prefix = suffix[: len(suffix) - dropped], prefix[excess - dropped :]
        special = self.tokenizer.special
        end = np.array([special["end"]], dtype=np.int32)
        return np.concatenate([fim_prompt(special, prefix, suffix, bool(u[0] < 0.5)), middle, end])

    def parts(self, body: Ids, first: float, second: float) -> tuple[Ids, Ids, Ids] | None:
        """Prefix, middle and suffix, cut between characters at two positions; `first` and `second` are uniform."""
        if self.tokenizer.kind in ("chars", "bytes"):
            positions = between_characters(body, self.tokenizer)
            a, b = sorted(int(positions[int(v * len(positions))]) for v in (first, second))
            return body[:a], body[a:b], body[b:]
        text = self.tokenizer.decode(body.tolist())
        if "\ufffd" in text:
            return None
        a, b = sorted(int(v * (len(text) + 1)) for v in (first, second))
        prefix, middle, suffix = self.tokenizer.encode_many([text[:a], text[a:b], text[b:]])
        return prefix, middle, suffix


def between_characters(body: Ids, tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Positions 0 ... len(body) that are not within a character: not before a continuation byte of UTF-8, and not
    between the nibbles of one character."""
    within = np.zeros(len(body) + 1, dtype=bool)
    if tokenizer.kind == "bytes":
        within[:-1] = (body >= 0x80) & (body < 0xC0)
    else:
        half = np.isin(body, tokenizer.nibbles)
        within[1:-1] = half[1:] & half[:-1]
    within[0] = False
    return np.flatnonzero(~within)


def fim_prompt(special: Mapping[str, int], prefix: Ids, suffix: Ids, suffix_first: bool = False) -> Ids:
    """The tokens before the middle: PSM, or SPM in the variant in which prefix and middle are one text (Bavarian et al.
    2022, appendix D)."""
    p, s, m = (np.array([special[name]], dtype=np.int32) for name in MARKS)
    return np.concatenate([p, s, suffix, m, prefix] if suffix_first else [p, prefix, s, suffix, m])


def supports_fim(special: Mapping[str, int]) -> bool:
    """Whether a tokenizer has the special tokens of fill-in-the-middle."""
    return all(m in special for m in MARKS)
