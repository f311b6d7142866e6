"""Autoregressive sampling: functions over a `Predict` that returns logits for the next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.device import wide
from afresh.core.rng import Rng
from afresh.sampling.constraint import Constraint, check_finished, restrict
from afresh.sampling.deadline import Deadline

# (index of the sample, token, its log-probability at temperature 1 among all tokens) -> whether to end the sample
Watch = Callable[[int, int, float], bool]


@dataclass(frozen=True)
class Cut:
    """How a next-token distribution is truncated before drawing. Temperature 0 draws the likeliest token."""

    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0


def narrow(logits: Tensor, cut: Cut) -> Tensor:
    """Probabilities (B, V) of logits (B, V) after temperature, top-k, top-p (Holtzman et al. 2020) and min-p (Nguyen et
    al. 2024), in this order; float64, on the CPU if the device of the logits has none.

    Ties at a threshold are treated alike, so that the result does not depend on the order of the vocabulary.
    """
    if cut.temperature == 0:
        return wide(torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]))
    p = (wide(logits) / cut.temperature).softmax(-1)
    if cut == Cut(cut.temperature):
        return p
    keep = torch.ones_like(p, dtype=torch.bool)
    if 0 < cut.top_k < p.shape[-1]:
        keep &= p >= p.topk(cut.top_k, -1).values[:, -1:]
    if cut.top_p < 1:
        ranked = torch.where(keep, p, 0.0)
        ranked, _ = (ranked / ranked.sum(-1, keepdim=True)).sort(-1, descending=True)
        within = ranked.cumsum(-1) - ranked < cut.top_p  # includes the token that exceeds the mass
        last = within.sum(-1, keepdim=True) - 1
        mass = torch.where(keep, p, 0.0)
        keep &= mass / mass.sum(-1, keepdim=True) >= ranked.gather(-1, last)
    if cut.min_p > 0:
        keep &= p >= cut.min_p * p.amax(-1, keepdim=True)
    p = torch.where(keep, p, 0.0)
    return p / p.sum(-1, keepdim=True)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """Draw by the inverse of the cumulative distribution: p (B, V), u (B,) in [0, 1) -> (B,) int64, where u is."""
    total = wide(p).cumsum(-1)  # float64, so that u times the sum is less than the sum (u has 24 bits)
    return torch.searchsorted(total, (u.to(total) * total[:, -1])[:, None], right=True)[:, 0].to(u.device)


def window_start(position: int, context: int) -> int:
    """The first position that the token at `position` may attend to.

    It is 0 while all tokens fit in the context, and then advances by half a context at a time, so that at least half of
    the context is visible.
    """
    stride = context + 1 - max(1, context // 2)
    return -(-max(0, position - context) // stride) * stride


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
    watch: Watch | None = None,
    among_drawn: bool = False,
) -> list[list[int]]:
    """Continue each prompt by up to `length` tokens, and return the continuations without `end`.

    A prompt begins with the token of context. Rows may differ in length, and leave the batch when they draw `end` or
    are long enough. When `context` is full, the window of a row restarts with its last half, at positions that depend
    on nothing else (`window_start`). The draw at position i of the sample `index` uses rng.uniform("token/i", index):
    it is the same alone and in a batch.

    `constraints`: what each continuation must match; they need `end`. A row that would not match within `length` tokens
    is ended in time (`Deadline`). Raises UserError if that needs more tokens, and if no way to end a row was found and
    it does not match after `length` tokens. `watch` is called with every token; a row that it ends leaves the batch at
    once, whether it matches or not. `among_drawn`: `watch` receives log-probabilities among the tokens that are not
    banned, from which tokens are drawn.
    """
    assert constraints is None or end is not None, "constraints need a token that ends a text"
    rows = [list(p) for p in prompts]
    goal = [len(p) + length for p in prompts]
    active = list(range(len(rows)))
    starts = [window_start(len(p), context) for p in rows]
    fed = [r[s:] for r, s in zip(rows, starts, strict=True)]
    state, sample_index, number = None, index, index.tolist()
    forbidden = torch.tensor(banned, dtype=torch.int64, device=index.device)
    stopped: set[int] = set()
    deadlines = [] if constraints is None or end is None else [Deadline(c, length, end) for c in constraints]
    while active:
        x, counts = ragged(fed, index.device)
        logits, state = predict(x, counts, cond, state)
        log_probs = logits.log_softmax(-1) if watch is not None else None
        if banned:
            logits = logits.index_fill(1, forbidden, -torch.inf)
            log_probs = logits.log_softmax(-1) if watch is not None and among_drawn else log_probs
        if deadlines and end is not None:
            logits = restrict(logits, [deadlines[i].constraint for i in active], end)
        if cut.temperature == 0:
            drawn = logits.argmax(-1)
        else:
            drawn = draw(narrow(logits, cut), rng.uniform_each([f"token/{len(rows[i])}" for i in active], sample_index))
        if deadlines:
            taken = [deadlines[i].take(t, goal[i] - len(rows[i])) for i, t in zip(active, drawn.tolist(), strict=True)]
            drawn = drawn.new_tensor(taken)
        token_logps = [0.0] * len(active) if log_probs is None else log_probs.gather(1, drawn[:, None])[:, 0].tolist()
        staying, fed, restarted = [], [], []
        for row, (i, token) in enumerate(zip(active, drawn.tolist(), strict=True)):
            rows[i].append(token)
            over = token == end or len(rows[i]) >= goal[i]
            if watch is not None and watch(number[i], token, token_logps[row]):
                stopped.add(i)
            if over or i in stopped:
                continue
            staying.append(row)
            start = window_start(len(rows[i]), context)
            if start != starts[i]:
                starts[i] = start
                restarted.append(len(fed))
            fed.append(rows[i][start:] if restarted[-1:] == [len(fed)] else [token])
        if len(staying) < len(active):
            staying_rows = torch.tensor(staying, dtype=torch.int64, device=index.device)
            active = [active[row] for row in staying]
            sample_index, cond = sample_index[staying_rows], cond.select(staying_rows)
            state = None if state is None else state.select(staying_rows)
        if restarted and state is not None:
            state.restart(torch.tensor(restarted, device=index.device))
    check_finished([i in stopped or d.constraint.finished() for i, d in enumerate(deadlines)], length)
    new = [r[g - length :] for r, g in zip(rows, goal, strict=True)]
    return [n[:-1] if end is not None and n[-1] == end else n for n in new]


def ragged(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Pad rows with zeros to (B, T). Also returns their lengths (B,), or None if all lengths are equal."""
    counts = [len(r) for r in rows]
    longest = max(counts, default=0)
    x = torch.tensor([[*r, *[0] * (longest - len(r))] for r in rows], device=device)
    return x, None if min(counts, default=0) == longest else torch.tensor(counts, device=device)
