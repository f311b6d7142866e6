"""Pictures that go on beyond their edges: a window of the model's size slides outwards over what is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.runs.inputs import encoded
from afresh.sampling import energy
from afresh.sampling.samples import Samples
from afresh.tasks.editor import Change, Editor, places, wishes

SIDES = {"left": (3, -1), "right": (3, 1), "top": (2, -1), "bottom": (2, 1)}  # axis, direction


def sides(given: str) -> dict[str, int]:
    """'right=16,top=8' to pixels a side. Raises UserError."""
    out: dict[str, int] = {}
    for word in given.split(","):
        name, _, count = word.strip().partition("=")
        if name not in SIDES or not count.isdigit() or not int(count):
            raise UserError(
                f"`outpaint` takes SIDE=PIXELS, as in right=16,top=8, a side of {', '.join(SIDES)}. Given: {word!r}."
            )
        if name in out:
            raise UserError(f"`outpaint` names the side {name} twice: {out[name]} and {count} pixels. Give it once.")
        out[name] = int(count)
    return out


def outpainted(editor: Editor, pictures: Sequence[Any], wanted: Mapping[str, int], change: Change, n: int) -> Samples:
    """n larger pictures of each. One side after the other, at most half a window at a time, so that every new part is
    drawn beside half a window of what is there. Raises UserError for a mask or an enlargement beside."""
    if change.mask is not None or change.upscale != 1 or change.strength is not None:
        raise UserError("`outpaint` keeps the picture and adds to it: leave `mask`, `upscale` and `strength` out.")
    if editor.run.encoder.space.timed:
        raise UserError("`outpaint` is for pictures. A sound goes on by `extend=SECONDS`.")
    start = encoded(editor.run, pictures).repeat_interleave(n, 0)
    canvas = start
    for step, (side, count) in enumerate(wanted.items()):
        canvas = grown(replace_seed(editor, step), canvas, side, count, change)
    described = [
        {"picture": i // n, "variation": i % n, "outpaint": dict(wanted), **editor.requested}
        for i in range(len(canvas))
    ]
    run = editor.run
    return Samples(run.encoder.decode(canvas), canvas, editor.cond(len(canvas)), described, editor.seed, run.encoder)


def replace_seed(editor: Editor, step: int) -> Editor:
    """Other noise for every side."""
    return replace(editor, seed=editor.seed + 7919 * step)


def grown(editor: Editor, canvas: Tensor, side: str, count: int, change: Change) -> Tensor:
    """canvas (B, C, H, W) larger by `count` at a side; windows slide across the other axis where it is longer."""
    axis, way = SIDES[side]
    size = editor.run.encoder.space.shape[axis - 1]
    part = 0
    while count:
        new = min(count, size // 2)
        canvas = added(editor, canvas, axis, way, new, change, part)
        count, part = count - new, part + 1
    return canvas


def added(editor: Editor, canvas: Tensor, axis: int, way: int, new: int, change: Change, part: int) -> Tensor:
    """canvas with `new` more rows or columns, drawn window by window."""
    shape = list(canvas.shape)
    shape[axis] = new
    blank = canvas.new_zeros(shape)
    pair = [canvas, blank] if way > 0 else [blank, canvas]
    known = torch.cat([torch.ones_like(canvas).bool(), torch.zeros_like(blank).bool()][:: 1 if way > 0 else -1], axis)
    full = torch.cat(pair, axis)
    size, other = editor.run.encoder.space.shape[axis - 1], 5 - axis
    across = editor.run.encoder.space.shape[other - 1]
    low = full.shape[axis] - size if way > 0 else 0
    parts, weight = wishes(editor.run, change)
    for k, at in enumerate(places(full.shape[other], across)):
        window = full.narrow(axis, low, size).narrow(other, at, across)
        keep = known.narrow(axis, low, size).narrow(other, at, across)
        now = replace(editor, seed=editor.seed + 101 * part + 13 * k)
        made = now.apply(window.contiguous(), 1.0, keep.contiguous(), lambda rows: energy.total(parts), weight)
        window.copy_(made)
        keep.fill_(True)
    return full
