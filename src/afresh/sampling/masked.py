"""Unmasking: functions over a `Predict` that returns logits (B, T, V) of every place of a window at once.

Masked diffusion with the log-linear schedule shows each place at a time of its own, uniform on [0, 1], and a network
that is not told the time answers the same until something is shown. So only the order counts, and sampling takes one
evaluation of the network for each group of places that are shown together. With one place a group this is the
first-hitting sampler (Zheng et al. 2024, section 4), which draws from the any-order model exactly. Larger groups are
the ancestral sampler of Sahoo et al. 2024 (section 3.2) with as many places in each step instead of a random number:
places of a group are drawn as if they were independent, which is the price of speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.rng import Rng
from afresh.sampling.tokens import Cut, draw, narrow

Order = Literal["random", "confidence"]
AT_ONCE = 2**24  # logits that are held at a time


@dataclass(frozen=True)
class Unmask:
    """How masked places are filled. `mask` is the mask's id, one above the vocabulary; `banned` ids are never drawn.

    `steps`: evaluations of the network for a window at most; 0 = one for each place. `random` shows places in an order
    that is drawn beforehand, `confidence` those first whose drawn token is the likeliest (Chang et al. 2022, section
    3.2, without its noise).
    """

    mask: int
    cut: Cut
    steps: int = 0
    order: Order = "random"
    banned: Sequence[int] = ()


def ranks(key: Tensor, among: Tensor) -> Tensor:
    """Ascending rank of each key (B, T) among the places where `among` (B, T) is true; the others come after."""
    last = torch.inf if key.is_floating_point() else torch.iinfo(key.dtype).max
    return key.masked_fill(~among, last).argsort(stable=True, dim=1).argsort(1)


def fill(
    predict: Predict, x: Tensor, wanted: Tensor, cond: Cond, rng: Rng, index: Tensor, how: Unmask, name: str
) -> Tensor:
    """Windows x (B, T + 1), each led by a token of context, with the `wanted` (B, T) places, now masked, filled.

    A row of M wanted places takes min(M, steps) evaluations, which show M / min(M, steps) places each. Draws are keyed
    by (name, index, place), so that a row is the same alone or in a batch.
    """
    x, length = x.clone(), wanted.shape[1]
    order = ranks(rng.bits(f"{name}/order", index, (length,)), wanted)
    u = rng.uniform(f"{name}/token", index, (length,))
    count = wanted.sum(1)
    turns = count.clamp(max=how.steps) if how.steps else count
    for turn in range(int(turns.max())):
        live = (turns > turn).nonzero()[:, 0]
        shown = (turn + 1) * count // turns.clamp_min(1)  # places to be shown after this turn
        for rows in live.split(max(1, AT_ONCE // (length * how.mask))):
            window, asked = x[rows], cond.select(rows)
            hidden = wanted[rows] & (window[:, 1:] == how.mask)
            logits, _ = predict(window, None, asked, None)
            if how.banned:
                logits[..., list(how.banned)] = -torch.inf
            if how.order == "random":
                now = hidden & (order[rows] < shown[rows, None])
                tokens = draw(narrow(logits[now], how.cut), u[rows][now])
            else:
                now, tokens = surest(logits, hidden, u[rows], shown[rows] - (count[rows] - hidden.sum(1)), how.cut)
            x[rows] = torch.cat([window[:, :1], window[:, 1:].masked_scatter(now, tokens)], 1)
    return x


def surest(logits: Tensor, hidden: Tensor, u: Tensor, quota: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    """The `quota` (B,) hidden places of each row whose drawn token is the likeliest, (B, T) bool, and those tokens."""
    p = logits[hidden]
    tokens = draw(narrow(p, cut), u[hidden])
    sure = (
        p.double().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    )  # before the cut, which may leave one token alone
    key = torch.full(hidden.shape, torch.inf, dtype=torch.float64, device=p.device).masked_scatter(hidden, -sure)
    now = hidden & (ranks(key, hidden) < quota[:, None])
    return now, tokens[now[hidden]]


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
    """Texts x (B, L + 1) of any length, each led by a token of context, with the `wanted` (B, L) places filled.

    Semi-autoregressive: windows of `context` places start half a window apart, and each is filled given what the ones
    before it left in its first half (and whatever was known). Where `end` was drawn for a wanted place, the windows
    after it are left as they are. The last `margin` places of a window are left to the next one while their text goes
    on, so that a hole is filled by one that also sees what comes after it; `margin` is at most half a window.
    """
    x, wanted = x.clone(), wanted.clone()
    length, stride = wanted.shape[1], max(1, context // 2)
    places = torch.arange(length, device=x.device)
    ends = torch.where(wanted | (x[:, 1:] != how.mask), places + 1, 0).amax(1)  # (B,) of each text
    for start in range(0, max(1, length - context + stride), stride):
        stop = min(start + context, length)
        room = (0, start + context - stop)  # what lies beyond the text stays masked
        window = torch.nn.functional.pad(x[:, start : stop + 1], room, value=how.mask)
        here = torch.where(ends > start + context, start + context - margin, stop)  # where this window stops filling
        now = wanted & (places < here[:, None])
        need = torch.nn.functional.pad(now[:, start:stop], room, value=False) & (window[:, 1:] == how.mask)
        rows = need.any(1).nonzero()[:, 0]
        if len(rows):
            name = f"unmask/{start}"
            done = fill(predict, window[rows], need[rows], cond.select(rows), rng, index[rows], how, name)
            x[rows, start + 1 : stop + 1] = done[:, 1 : stop - start + 1]
        if end is not None:
            ended = (wanted & (x[:, 1:] == end)).int().cummax(1).values.bool()
            wanted &= ~ended
    return x
