"""Sampling by unmasking, with a `Predict` that returns the logits (B, T, V) of all positions of a window at once.

Masked diffusion with the log-linear schedule unmasks each position at a time that is uniform on [0, 1], and the output
of a network without a time input changes only when a position is unmasked. Hence only the order matters, and sampling
needs one evaluation for each group of positions that are unmasked together. With groups of one position this is the
first-hitting sampler (Zheng et al. 2024, section 4), which samples from the any-order model exactly. Larger groups are
the ancestral sampler of Sahoo et al. 2024 (section 3.2) with a fixed instead of a random number of positions in each
step. The positions of a group are drawn independently, an approximation for the sake of speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.device import wide
from afresh.core.rng import Rng
from afresh.core.solver_progress import step as tell
from afresh.engine.sampling.constraint import Constraint, restrict
from afresh.engine.sampling.text_time_limit import Deadline
from afresh.engine.sampling.tokens import Cut, draw, narrow
from afresh.services.watermark.marked_text import AnyOrder
from afresh.services.watermark.watermark import Watermark

Order = Literal["random", "confidence"]
MAX_LOGITS = 2**24  # in memory at a time


@dataclass(frozen=True)
class Unmask:
    """How masked positions are filled. `mask` is the mask's id, one above the vocabulary; `banned` ids are never drawn.

    `steps`: the maximum number of network evaluations for a window; 0 = one for each position. The order `random` is
    drawn in advance; `confidence` first unmasks the positions whose drawn token is the likeliest (Chang et al. 2022,
    section 3.2, without their noise). `watermark` marks the tokens whose context was drawn before them (see
    afresh.services.watermark.marked_text.AnyOrder for what that gives). `follows` makes the constraint of what follows
    a prompt, to which `repair` holds texts without holes.
    """

    mask: int
    cut: Cut
    steps: int = 0
    order: Order = "random"
    banned: Sequence[int] = ()
    watermark: Watermark | None = None
    follows: Callable[[Sequence[int]], Constraint] | None = None

    def marking(self, drawn: Tensor, rng: Rng, index: Tensor) -> AnyOrder | None:
        """How texts are marked whose positions `drawn` (B, T) are filled; None if they are not."""
        if self.watermark is None or self.cut.temperature == 0:
            return None
        return AnyOrder.of(self.watermark, drawn, rng, index)


def ranks(key: Tensor, among: Tensor) -> Tensor:
    """Ascending rank of each key (B, T) among the positions where `among` (B, T) is true; the others follow."""
    last = torch.inf if key.is_floating_point() else torch.iinfo(key.dtype).max
    return key.masked_fill(~among, last).argsort(stable=True, dim=1).argsort(1)


def fill(
    predict: Predict,
    x: Tensor,
    wanted: Tensor,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    how: Unmask,
    name: str,
    marking: AnyOrder | None = None,
) -> Tensor:
    """Fill the masked positions `wanted` (B, T) of windows x (B, T + 1), which begin with a token of context.

    `marking`: of the texts to which the windows belong; None: as `how` says.

    A row of M such positions needs min(M, steps) evaluations, each of which unmasks M / min(M, steps) positions. Draws
    are keyed by (name, index, position), so that a row is the same alone and in a batch.
    """
    x, length = x.clone(), wanted.shape[1]
    order = ranks(rng.bits(f"{name}/order", index, (length,)), wanted)
    u = rng.uniform(f"{name}/token", index, (length,))
    count = wanted.sum(1)
    steps = count.clamp(max=how.steps) if how.steps else count
    marking = how.marking(wanted, rng, index) if marking is None else marking
    for step in range(int(steps.max())):
        active = (steps > step).nonzero()[:, 0]
        goal = (step + 1) * count // steps.clamp_min(1)  # unmasked positions after this step
        for rows in active.split(max(1, MAX_LOGITS // (length * how.mask))):
            window, row_cond = x[rows], cond.select(rows)
            hidden = wanted[rows] & (window[:, 1:] == how.mask)
            logits, _ = predict(window, None, row_cond, None)
            if how.banned:
                logits[..., list(how.banned)] = -torch.inf
            candidates = hidden & (order[rows] < goal[rows, None]) if how.order == "random" else hidden
            p, own = narrow(logits[candidates], how.cut), None
            if marking is not None:
                own = marking.select(rows, 0, length)
                p, keys = own.mark(p, window[:, 1:], window[:, 1:] == how.mask, candidates)
            tokens, chosen = draw(p, u[rows][candidates]), candidates
            if how.order == "confidence":
                chosen = surest(logits[hidden], tokens, hidden, goal[rows] - (count[rows] - hidden.sum(1)))
                tokens = tokens[chosen[hidden]]
            if own is not None:
                own.remember(keys, candidates, chosen)
            x[rows] = torch.cat([window[:, :1], window[:, 1:].masked_scatter(chosen, tokens)], 1)
            tell(step + 1, int(steps.max()))
    return x


def surest(logits: Tensor, tokens: Tensor, hidden: Tensor, quota: Tensor) -> Tensor:
    """The `quota` (B,) hidden positions of each row whose drawn tokens are the likeliest, (B, T) bool. `logits` (N, V)
    and `tokens` (N,) are those of all hidden positions."""
    # Probabilities before truncation, which may leave a single token.
    logp = wide(logits).log_softmax(-1)
    logp = logp.gather(1, tokens[:, None].to(logp.device))[:, 0]
    among = hidden.to(logp.device)
    key = torch.full(hidden.shape, torch.inf, dtype=torch.float64, device=logp.device).masked_scatter(among, -logp)
    return hidden & (ranks(key, among).to(logits.device) < quota[:, None])


def fill_long(
    predict: Predict,
    x: Tensor,
    wanted: Tensor,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    context: int,
    how: Unmask,
    end: int | None = None,
    margin: int = 0,
) -> Tensor:
    """Fill the positions `wanted` (B, L) of texts x (B, L + 1) of any length, which begin with a token of context.

    Semi-autoregressive: windows of `context` positions start half a window apart, and each is filled given the known
    tokens and those that the windows before it drew in its first half. After an `end` that was drawn, a text is not
    filled any further. The last `margin` positions of a window, at most half of it, are left to the next window while
    the text continues, so that a hole is filled with the text after it in view.
    """
    marking = how.marking(wanted, rng, index)
    x, wanted = x.clone(), wanted.clone()
    length, stride = wanted.shape[1], max(1, context // 2)
    positions = torch.arange(length, device=x.device)
    ends = torch.where(wanted | (x[:, 1:] != how.mask), positions + 1, 0).amax(1)  # (B,) length of each text
    for start in range(0, max(1, length - context + stride), stride):
        stop = min(start + context, length)
        room = (0, start + context - stop)  # positions after the text stay masked
        window = torch.nn.functional.pad(x[:, start : stop + 1], room, value=how.mask)
        limit = torch.where(ends > start + context, start + context - margin, stop)  # where filling stops
        now = wanted & (positions < limit[:, None])
        need = torch.nn.functional.pad(now[:, start:stop], room, value=False) & (window[:, 1:] == how.mask)
        rows = need.any(1).nonzero()[:, 0]
        if len(rows):
            name = f"unmask/{start}"
            own = None if marking is None else marking.select(rows, start, start + context)
            filled = fill(predict, window[rows], need[rows], cond.select(rows), rng, index[rows], how, name, own)
            x[rows, start + 1 : stop + 1] = filled[:, 1 : stop - start + 1]
        if end is not None:
            ended = (wanted & (x[:, 1:] == end)).int().cummax(1).values.bool()
            wanted &= ~ended
    return x


def repair(
    predict: Predict,
    x: Tensor,
    start: Tensor,
    stop: Tensor,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    context: int,
    how: Unmask,
    end: int,
) -> Tensor:
    """Texts x (B, L + 1) whose tokens after `start` (B,) up to `stop` (B,) keep to the constraint `how.follows`.

    From left to right, a token that may not stand where it was drawn is drawn again from those that may, given the
    tokens on both sides of it, so that a valid text stays as it is. The text ends by `stop`. Tokens that are drawn
    again bear no watermark. Raises UserError if `stop` is too near for the shortest text.
    """
    x, length = x.clone(), x.shape[1] - 1
    u = rng.uniform("repair", index, (length + 1,))
    spans = list(zip(start.tolist(), stop.tolist(), strict=True))
    assert how.follows is not None
    texts = [Deadline(how.follows(row[: a + 1]), b - a, end) for row, (a, b) in zip(x.tolist(), spans, strict=True)]
    for place in range(int(start.min()) + 1, length + 1):
        rows = [i for i, (a, b) in enumerate(spans) if a < place <= b and (place == a + 1 or x[i, place - 1] != end)]
        wrong = [i for i in rows if not may_stand(int(x[i, place]), texts[i].constraint, end)]
        if wrong:
            begin = max(0, min(place - 1 - context // 2, length - context))
            window = x[wrong, begin : begin + context + 1]
            window = torch.nn.functional.pad(window, (0, context + 1 - window.shape[1]), value=how.mask)
            window[:, place - begin] = how.mask
            logits, _ = predict(window, None, cond.select(torch.tensor(wrong, device=x.device)), None)
            logits = restrict(logits[:, place - begin - 1], [texts[i].constraint for i in wrong], end)
            x[wrong, place] = draw(narrow(logits, how.cut), u[wrong, place])
        for i in rows:
            x[i, place] = texts[i].take(int(x[i, place]), spans[i][1] - place + 1)
    return x


def may_stand(token: int, text: Constraint, end: int) -> bool:
    allowed = text.allowed()
    return text.finished() if token == end else token < len(allowed) and bool(allowed[token])
