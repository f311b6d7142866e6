"""Autoregressive sampling: functions over a `Predict` that returns logits for the next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.rng import Rng
from afresh.sampling.constraint import Constraint, check_finished, restrict


@dataclass(frozen=True)
class Cut:
    """How a next-token distribution is narrowed before drawing. Zero temperature: the likeliest token."""

    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0


def narrow(logits: Tensor, cut: Cut) -> Tensor:
    """Probabilities (B, V) after temperature, then top-k, top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024).

    Ties at a threshold are kept together, so that the result does not depend on the order of the vocabulary.
    """
    if cut.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(torch.float64)
    p = (logits.double() / cut.temperature).softmax(-1)
    keep = torch.ones_like(p, dtype=torch.bool)
    if 0 < cut.top_k < p.shape[-1]:
        keep &= p >= p.topk(cut.top_k, -1).values[:, -1:]
    if cut.top_p < 1:
        ranked = torch.where(keep, p, 0.0)
        ranked, _ = (ranked / ranked.sum(-1, keepdim=True)).sort(-1, descending=True)
        inside = ranked.cumsum(-1) - ranked < cut.top_p  # the token that crosses the mass is kept
        last = inside.sum(-1, keepdim=True) - 1
        mass = torch.where(keep, p, 0.0)
        keep &= mass / mass.sum(-1, keepdim=True) >= ranked.gather(-1, last)
    if cut.min_p > 0:
        keep &= p >= cut.min_p * p.amax(-1, keepdim=True)
    p = torch.where(keep, p, 0.0)
    return p / p.sum(-1, keepdim=True)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """Inverse of the cumulative distribution: p (B, V), u (B,) in [0, 1) -> (B,) int64."""
    total = p.cumsum(-1)
    found = torch.searchsorted(total, (u.to(total.dtype) * total[:, -1])[:, None], right=True)[:, 0]
    last = p.shape[-1] - 1 - (p > 0).flip(-1).int().argmax(-1)  # the last possible token guards rounding
    return torch.minimum(found, last)


def window_start(place: int, context: int) -> int:
    """The first token that the one at `place` may look at: 0 while all fit, then so that half to all of the context
    is seen, moving by half a context at a time."""
    stride = context + 1 - max(1, context // 2)
    return -(-max(0, place - context) // stride) * stride


def generate(
    predict: Predict,
    prompts: Sequence[Sequence[int]],
    cond: Cond,
    rng: Rng,
    index: Tensor,
    length: int,
    context: int,
    cut: Cut,
    end: int | None = None,
    banned: Sequence[int] = (),
    constraints: Sequence[Constraint] | None = None,
) -> list[list[int]]:
    """Continue each prompt (which includes its first context token) by up to `length` tokens, prompts left out.

    Prompts of different lengths share a batch: the shorter ones start sooner and the longer are fed their own
    tokens until they run out, so nothing is padded. A row that draws `end` keeps being computed only until all
    rows are done; what follows `end` is dropped. When `context` is full, the window restarts on its last half, at
    places that depend on the place alone (`window_start`). The draw at place i of row `index` uses
    rng.uniform("token/i", index): the same alone or in a batch.

    `constraints`, one a row, say what each continuation must match; with them `end` must be given. Raises UserError
    for a row that has no match after `length` tokens.
    """
    assert constraints is None or end is not None, "a structured text needs a token that ends it"
    rows = [list(p) for p in prompts]
    start = [len(p) for p in prompts]
    done = [False] * len(rows)
    device = index.device
    place = min(start)  # of the token to be drawn
    since = window_start(place, context)
    block, state = torch.tensor([r[since:place] for r in rows], device=device), None
    while True:
        logits, state = predict(block, None, cond, state)
        if banned:
            logits[:, list(banned)] = -torch.inf
        if constraints is not None and end is not None:
            open_ = [place >= s and not d and place < s + length for s, d in zip(start, done, strict=True)]
            logits = restrict(logits, [c if o else None for c, o in zip(constraints, open_, strict=True)], end)
        chosen = draw(narrow(logits, cut), rng.uniform(f"token/{place}", index)).tolist()
        for i, row in enumerate(rows):
            if place >= start[i]:
                over = done[i] or place >= start[i] + length
                row.append(row[-1] if over else chosen[i])
                done[i] = over or chosen[i] == end
                if constraints is not None and not done[i]:
                    constraints[i].accept(chosen[i])
        place += 1
        if all(d or place >= s + length for d, s in zip(done, start, strict=True)):
            break
        moved = window_start(place, context)
        if moved != since:
            since, state = moved, None
            block = torch.tensor([r[since:place] for r in rows], device=device)
        else:
            block = torch.tensor([[r[place - 1]] for r in rows], device=device)
    if constraints is not None:
        check_finished([c.finished() for c in constraints], length)
    out = []
    for row, s in zip(rows, start, strict=True):
        new = row[s : s + length]
        out.append(new[: new.index(end)] if end is not None and end in new else new)
    return out
