"""Fill-in-the-middle: documents rearranged so that a model of what comes next learns what belongs in between.

Bavarian et al. 2022, "Efficient training of language models to fill in the middle": a document is cut at two random
characters into prefix, middle and suffix, and shown as prefix, suffix, middle (PSM) or suffix, prefix, middle (SPM).
It is done to windows when they are drawn for training (what they call context level), for a window cut out of a
rearranged document seldom holds all three parts. So an epoch shows other middles than the one before, and what a model
is judged on is never rearranged.
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
SHORTEST = 16  # tokens of a piece of a document that is worth cutting in three
PIECES = 16  # documents of one window that may be rearranged; those after them stay as they are
EXTRA = 4  # the marks, and the end of the middle


@dataclass(frozen=True)
class FillIn:
    """Rearranges a share `rate` of the documents in each window, half of them PSM, half SPM."""

    tokenizer: Tokenizer
    rate: float

    def __call__(self, batch: Batch, rng: Rng) -> Batch:
        """The batch with windows x (B, T + 1) rearranged; what does not fit any more is left out of their ends.

        Keyed by the draws: a window is rearranged alike alone and in a batch. Marks do not count as targets, since
        they are always given, and neither does padding.
        """
        u = rng.uniform("fim", batch.index, (PIECES, 4)).numpy()  # (B, PIECES, 4)
        x = batch.x.numpy()
        counted = torch.ones_like(batch.x[:, 1:], dtype=torch.bool) if batch.mask is None else batch.mask
        rows = [self.window(row, int(n), v) for row, n, v in zip(x, counted.sum(1), u, strict=True)]
        made, mask = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        return replace(batch, x=made, mask=mask)

    def window(
        self, row: NDArray[np.int64], n: int, u: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """One window (T + 1,) of which the first n targets count, and which of its targets count afterwards (T,)."""
        end, size = self.tokenizer.special["end"], len(row) - 1
        out = np.full(size + 1, end, dtype=row.dtype)
        mask = np.zeros(size, dtype=bool)
        out[0], used = row[0], 0
        ends = np.flatnonzero(row[1 : n + 1] == end) + 1
        cuts = [0, *ends.tolist()] if len(ends) and ends[-1] == n else [0, *ends.tolist(), n]
        for i, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False)):
            piece, room = row[1 + a : 1 + b].astype(np.int32), size - used
            body = piece[:-1] if piece[-1] == end else piece
            made = None
            if i < PIECES and min(len(body), room - EXTRA) >= SHORTEST and u[i, 0] < self.rate:
                made = self.arrange(body, room, u[i, 1:])
            if made is not None and i == 0:
                out[0] = end  # what stands before a document
            ids = (piece if made is None else made)[:room]
            out[1 + used : 1 + used + len(ids)] = ids
            mask[used : used + len(ids)] = ~np.isin(ids, [self.tokenizer.special[m] for m in MARKS])
            used += len(ids)
        return out, mask

    def arrange(self, body: Ids, room: int, u: NDArray[np.float32]) -> Ids | None:
        """A piece of a document in three parts with marks, in at most `room` tokens; None where it begins or ends
        within a character, or where the middle alone does not fit.

        What is too much is left out of the suffix's end, then of the prefix's beginning. u: which order, two cuts.
        """
        parts = self.parts(body[: room - EXTRA], u[1], u[2])
        if parts is None or len(parts[1]) + EXTRA > room:
            return None
        prefix, middle, suffix = parts
        over = max(0, len(prefix) + len(middle) + len(suffix) + EXTRA - room)
        gone = min(over, len(suffix))
        suffix, prefix = suffix[: len(suffix) - gone], prefix[over - gone :]
        special = self.tokenizer.special
        end = np.array([special["end"]], dtype=np.int32)
        return np.concatenate([fim_prompt(special, prefix, suffix, bool(u[0] < 0.5)), middle, end])

    def parts(self, body: Ids, first: float, second: float) -> tuple[Ids, Ids, Ids] | None:
        """Prefix, middle and suffix, cut between characters, at two places uniform over all of them."""
        if self.tokenizer.kind in ("chars", "bytes"):
            places = between_characters(body, self.tokenizer)
            a, b = sorted(int(places[int(v * len(places))]) for v in (first, second))
            return body[:a], body[a:b], body[b:]
        text = self.tokenizer.decode(body.tolist())
        if "\ufffd" in text:
            return None
        a, b = sorted(int(v * (len(text) + 1)) for v in (first, second))
        prefix, middle, suffix = self.tokenizer.encode_many([text[:a], text[a:b], text[b:]])
        return prefix, middle, suffix


def between_characters(body: Ids, tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Places 0 ... len(body) that are not within one character: not before a later byte of UTF-8, nor among halves."""
    within = np.zeros(len(body) + 1, dtype=bool)
    if tokenizer.kind == "bytes":
        within[:-1] = (body >= 0x80) & (body < 0xC0)
    else:
        half = np.isin(body, tokenizer.nibbles)
        within[1:-1] = half[1:] & half[:-1]
    within[0] = False
    return np.flatnonzero(~within)


def fim_prompt(special: Mapping[str, int], prefix: Ids, suffix: Ids, suffix_first: bool = False) -> Ids:
    """What stands before the middle: PSM, or SPM in the form whose prefix and middle are one text (Bavarian et al.
    2022, appendix D)."""
    p, s, m = (np.array([special[name]], dtype=np.int32) for name in MARKS)
    return np.concatenate([p, s, suffix, m, prefix] if suffix_first else [p, prefix, s, suffix, m])


def supports_fim(special: Mapping[str, int]) -> bool:
    """Whether a tokenizer has the marks."""
    return all(m in special for m in MARKS)
