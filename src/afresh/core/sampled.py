"""Samples as examples to learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.core.space import Batch, Cond, Space


def as_examples(space: Space, x: Tensor, cond: Cond, index: Tensor) -> Batch:
    """What a family's `sample` gave, as the batch that it would have been in training: fields as they are; tokens after
    the one that stands before them, and after what was given, which does not count.

    The `end` that fills up shorter texts counts once where it ended one, and not where it is padding.
    """
    if space.kind == "field":
        return Batch(x, cond, index)
    begin = space.special["end" if space.stream else "begin"]
    if not space.stream:
        whole = torch.cat([torch.full_like(x[:, :1], begin), x], 1)
        return Batch(whole, cond, index, torch.ones_like(x, dtype=torch.bool))
    given = x.new_zeros(len(x), 0) if cond.given is None else cond.given
    known = torch.ones_like(given, dtype=torch.bool) if cond.given_mask is None else cond.given_mask
    lead = [] if space.records and cond.given is not None else [begin]
    rows, counts = [], []
    for prompt, seen, new in zip(given, known, x, strict=True):
        front = [*lead, *prompt[seen].tolist()]
        text = new.tolist()
        while text and text[-1] == begin:
            text.pop()
        ended = len(text) < x.shape[1]
        rows.append([*front, *text, *([begin] if ended else [])])
        counts.append((len(front) - 1, len(rows[-1]) - 1))
    width = max(map(len, rows))
    tokens = torch.tensor([[*r, *[begin] * (width - len(r))] for r in rows], device=x.device)
    place = torch.arange(width - 1, device=x.device)
    first, last = (torch.tensor(v, device=x.device)[:, None] for v in zip(*counts, strict=True))
    return Batch(tokens, cond, index, (place >= first) & (place < last))
