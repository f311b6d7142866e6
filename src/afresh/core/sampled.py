"""Samples as examples for training."""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.core.space import Batch, Cond, Space


def as_examples(space: Space, x: Tensor, cond: Cond, index: Tensor) -> Batch:
    """The batch of training that corresponds to samples x of a family's `sample` under `cond`.

    Fields are unchanged. Tokens are preceded by the token of context and by the prompt, which is not counted by the
    mask. The `end` that pads shorter texts is counted once, where it ends a text.
    """
    if space.kind == "field":
        return Batch(x, cond, index)
    begin = space.special["end" if space.stream else "begin"]
    if not space.stream:
        tokens = torch.cat([torch.full_like(x[:, :1], begin), x], 1)
        return Batch(tokens, cond, index, torch.ones_like(x, dtype=torch.bool))
    prompts = x.new_zeros(len(x), 0) if cond.known is None else cond.known
    known = torch.ones_like(prompts, dtype=torch.bool) if cond.known_mask is None else cond.known_mask
    context = [] if space.records and cond.known is not None else [begin]
    rows, counts = [], []
    for prompt, is_known, new in zip(prompts, known, x, strict=True):
        prefix = [*context, *prompt[is_known].tolist()]
        text = new.tolist()
        while text and text[-1] == begin:
            text.pop()
        ended = len(text) < x.shape[1]
        rows.append([*prefix, *text, *([begin] if ended else [])])
        counts.append((len(prefix) - 1, len(rows[-1]) - 1))
    width = max(map(len, rows))
    tokens = torch.tensor([[*r, *[begin] * (width - len(r))] for r in rows], device=x.device)
    place = torch.arange(width - 1, device=x.device)
    first, last = (torch.tensor(v, device=x.device)[:, None] for v in zip(*counts, strict=True))
    return Batch(tokens, cond, index, (place >= first) & (place < last))
