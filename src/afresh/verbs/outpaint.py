"""Extend images beyond their edges, by moving a window of the model's size outwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.engine.sampling import energy
from afresh.engine.sampling.samples import Samples
from afresh.runs.inputs import encoded
from afresh.verbs.editor import Change, Editor, energies, window_starts

SIDES = {"left": (3, -1), "right": (3, 1), "top": (2, -1), "bottom": (2, 1)}  # axis, direction


def sides(text: str) -> dict[str, int]:
    """Parse 'right=16,top=8' into the pixels to add per side. Raises UserError for any other form."""
    out: dict[str, int] = {}
    for word in text.split(","):
        name, _, count = word.strip().partition("=")
        if name not in SIDES or not count.isdigit() or not int(count):
            raise UserError(
                f"`outpaint` takes SIDE=PIXELS, as in right=16,top=8, where SIDE is one of {', '.join(SIDES)}. Given: "
                f"{word!r}."
            )
        if name in out:
            raise UserError(f"`outpaint` names the side {name} twice: {out[name]} and {count} pixels. Give it once.")
        out[name] = int(count)
    return out


def outpainted(editor: Editor, images: Sequence[Any], added: Mapping[str, int], change: Change, n: int) -> Samples:
    """Extend each image in n versions by the `added` pixels per side.

    Sides are extended one after the other, at most half a window at a time, so that every new part is sampled next to
    half a window of existing image. Raises UserError if `mask`, `upscale` or `strength` is set as well, and for sounds.
    """
    if change.mask is not None or change.upscale != 1 or change.strength is not None:
        raise UserError("`outpaint` keeps the image and adds to it. Leave out `mask`, `upscale` and `strength`.")
    if editor.run.encoder.space.timed:
        raise UserError("`outpaint` is for images. To extend a sound, use `extend=SECONDS`.")
    if not editor.run.encoder.space.pixels:
        raise UserError(f"`outpaint` is for images, and {editor.run.path} makes {editor.run.encoder.kind.plural}.")
    height, width = editor.run.encoder.space.shape[1:]
    editor.check_windows(len(images) * n * windows((height, width), added))
    canvas = encoded(editor.run, images).repeat_interleave(n, 0)
    for step, (side, count) in enumerate(added.items()):
        other_noise = replace(editor, seed=editor.seed + 7919 * step)
        canvas = extend_side(other_noise, canvas, side, count, change)
    described = [
        {"picture": i // n, "variation": i % n, "outpaint": dict(added), **editor.requested} for i in range(len(canvas))
    ]
    return editor.samples(editor.run.encoder.decode(canvas), canvas, described, images)


def windows(size: tuple[int, int], added: Mapping[str, int]) -> int:
    """How many windows of this height and width extend one image of that size."""
    extent, out = list(size), 0
    for side, count in added.items():
        along = SIDES[side][0] - 2
        strips = -(-count // half(size[along]))
        out += strips * len(window_starts(extent[1 - along], size[1 - along]))
        extent[along] += count
    return out


def half(size: int) -> int:
    """The most that is added to a window of this size at once."""
    return max(1, size // 2)


def extend_side(editor: Editor, canvas: Tensor, side: str, count: int, change: Change) -> Tensor:
    """Extend canvas (B, C, H, W) by `count` pixels at a side; windows slide along the other axis if it is longer."""
    axis, direction = SIDES[side]
    size = editor.run.encoder.space.shape[axis - 1]
    part = 0
    while count:
        new = min(count, half(size))
        canvas = extend_strip(editor, canvas, axis, direction, new, change, part)
        count, part = count - new, part + 1
    return canvas


def extend_strip(
    editor: Editor, canvas: Tensor, axis: int, direction: int, new: int, change: Change, part: int
) -> Tensor:
    """Extend canvas by `new` rows or columns, window by window."""
    shape = list(canvas.shape)
    shape[axis] = new
    blank = canvas.new_zeros(shape)
    pair = [canvas, blank] if direction > 0 else [blank, canvas]
    masks = [torch.ones_like(canvas).bool(), torch.zeros_like(blank).bool()]
    known = torch.cat(masks if direction > 0 else masks[::-1], axis)
    full = torch.cat(pair, axis)
    size, other = editor.run.encoder.space.shape[axis - 1], 5 - axis
    across = editor.run.encoder.space.shape[other - 1]
    low = full.shape[axis] - size if direction > 0 else 0
    parts, weight = energies(editor.run, change)
    for k, at in enumerate(window_starts(full.shape[other], across)):
        window = full.narrow(axis, low, size).narrow(other, at, across)
        keep = known.narrow(axis, low, size).narrow(other, at, across)
        seeded = replace(editor, seed=editor.seed + 101 * part + 13 * k)
        edited = seeded.apply(window.contiguous(), 1.0, keep.contiguous(), lambda rows: energy.total(parts), weight)
        window.copy_(edited)
        keep.fill_(True)
    return full
