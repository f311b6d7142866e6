"""Autoregressive sampling: functions over a `Predict` that returns logits for the next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.rng import Rng
from afresh.sampling.constraint import Constraint, check_finished, restrict

# (index of the sample, token, its log-probability under the model at temperature 1, where nothing is left out) ->
# whether to stop there
Watch = Callable[[int, int, float], bool]


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
    if cut == Cut(cut.temperature):
        return p
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
    total = p.double().cumsum(-1)  # so that u, which has 24 bits, times the whole is less than the whole
    return torch.searchsorted(total, (u.double() * total[:, -1])[:, None], right=True)[:, 0]


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
    watch: Watch | None = None,
    among_drawn: bool = False,
) -> list[list[int]]:
    """Continue each prompt (which includes its first context token) by up to `length` tokens, prompts left out.

    Rows are of any lengths, each at its own place, and leave when they draw `end` or are long enough. When `context` is
    full, a row's window restarts on its last half, at places that depend on the place alone (`window_start`). The draw
    at place i of row `index` uses rng.uniform("token/i", index): the same alone or in a batch.

    `constraints`, one a row, say what each continuation must match; with them `end` must be given. Raises UserError
    for a row that has no match after `length` tokens. `watch` sees every token as it is drawn, and a row that it stops
    leaves at once, whether it matches or not. `among_drawn`: it is told log-probabilities among the tokens that are not
    banned, which are those of what is drawn.
    """
    assert constraints is None or end is not None, "a structured text needs a token that ends it"
    rows = [list(p) for p in prompts]
    goal = [len(p) + length for p in prompts]
    live = list(range(len(rows)))
    since = [window_start(len(p), context) for p in rows]
    feed = [r[s:] for r, s in zip(rows, since, strict=True)]
    state, here, number = None, index, index.tolist()
    forbidden = torch.tensor(banned, dtype=torch.int64, device=index.device)
    stopped: set[int] = set()
    while live:
        x, counts = ragged(feed, index.device)
        logits, state = predict(x, counts, cond, state)
        likely = logits.log_softmax(-1) if watch is not None else None
        if banned:
            logits = logits.index_fill(1, forbidden, -torch.inf)
            likely = logits.log_softmax(-1) if watch is not None and among_drawn else likely
        if constraints is not None and end is not None:
            logits = restrict(logits, [constraints[i] for i in live], end)
        if cut.temperature == 0:
            drawn = logits.argmax(-1)
        else:
            drawn = draw(narrow(logits, cut), rng.uniform_each([f"token/{len(rows[i])}" for i in live], here))
        sure = [0.0] * len(live) if likely is None else likely.gather(1, drawn[:, None])[:, 0].tolist()
        stay, feed, moved = [], [], []
        for at, (i, token) in enumerate(zip(live, drawn.tolist(), strict=True)):
            rows[i].append(token)
            if constraints is not None and token != end:
                constraints[i].accept(token)
            over = token == end or len(rows[i]) >= goal[i]
            if watch is not None and watch(number[i], token, sure[at]):
                stopped.add(i)
            if over or i in stopped:
                continue
            stay.append(at)
            start = window_start(len(rows[i]), context)
            if start != since[i]:
                since[i] = start
                moved.append(len(feed))
            feed.append(rows[i][start:] if moved[-1:] == [len(feed)] else [token])
        if len(stay) < len(live):
            kept = torch.tensor(stay, dtype=torch.int64, device=index.device)
            live = [live[at] for at in stay]
            here, cond, state = here[kept], cond.select(kept), state.select(kept) if state is not None else None
        if moved and state is not None:
            state.restart(torch.tensor(moved, device=index.device))
    if constraints is not None:
        check_finished([i in stopped or c.finished() for i, c in enumerate(constraints)], length)
    new = [r[g - length :] for r, g in zip(rows, goal, strict=True)]  # what follows the prompt
    return [n[:-1] if end is not None and n[-1] == end else n for n in new]


def ragged(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Rows filled up with zeros to (B, T), and how many of each count (B,); None: all."""
    counts = [len(r) for r in rows]
    longest = max(counts, default=0)
    x = torch.tensor([[*r, *[0] * (longest - len(r))] for r in rows], device=device)
    return x, None if min(counts, default=0) == longest else torch.tensor(counts, device=device)
