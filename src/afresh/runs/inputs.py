"""Pictures, sounds and masks that are given to a verb, as a run sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Item, UserError
from afresh.core.events import ignore, listening
from afresh.data.image.images import ImageError, Pixels, full_size_array, full_size_image
from afresh.runs.run import Run
from afresh.sampling import energy as e

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def picture(given: Any, background: tuple[int, int, int] = WHITE) -> Pixels:
    """The pixels (H, W, 1 or 3) uint8 of a file or an array, in its own size, transparency on the background.

    Raises UserError for what is no picture.
    """
    if isinstance(given, np.ndarray):
        array = given if given.ndim == 3 else given[..., None]
        return full_size_array(array, background).pixels if array.shape[-1] == 4 else array
    path = Path(given)
    try:
        return full_size_image(path, background).pixels
    except (ImageError, OSError) as why:
        raise UserError(f"{path} is no picture that can be read: {why}.") from None


def encoded(run: Run, given: Sequence[Any]) -> Tensor:
    """Pictures or sounds, or files of them, as the run sees them, (B, *shape) float32 in its modality's space. What had
    to be changed in a picture is told.

    Raises UserError for a file that cannot be read.
    """
    values = [Path(g) if isinstance(g, str | Path) else g for g in given]
    values = [v[..., None] if isinstance(v, np.ndarray) and v.ndim == 2 else v for v in values]
    examples = run.encoder.encode([Item(v) for v in values])
    return examples.x.float() * examples.scale + examples.shift


def fitted_mask(run: Run, mask: Any, pictures: Sequence[Any]) -> Tensor:
    """(1, 1, H, W) bool, true where values may change: what is bright in a picture of the size of the run's own, or of
    the given pictures, as which it is then cut or padded. What is transparent stays.

    Raises UserError for another size: a mask that is stretched would not fit its picture.
    """
    pixels = picture(mask, BLACK)
    bright: NDArray[np.bool_] = pixels.astype(np.float32).mean(-1) > (0.5 if pixels.dtype == bool else 127.5)
    height, width = run.encoder.space.shape[1:]
    change = torch.from_numpy(bright)[None, None]
    if bright.shape != (height, width):
        sizes = {picture(p).shape[:2] for p in pictures}
        if sizes != {bright.shape}:
            own = " and ".join(f"{w}x{h}" for h, w in sorted(sizes))
            raise UserError(
                f"The mask has {bright.shape[1]}x{bright.shape[0]} pixels; this model's pictures have {width}x{height}"
                f", those given {own}. Give a mask of either size, white where the picture may change."
            )
        change = as_seen(run, bright)
    if not bool(change.any()) or bool(change.all()):
        what = "black (or transparent): nothing may change" if not bool(change.any()) else "white: nothing is kept"
        raise UserError(f"The mask is all {what}. White is where the picture may change.")
    return change


def as_seen(run: Run, bright: NDArray[np.bool_]) -> Tensor:
    """A mask (H, W) brought to the run's size in the way that pictures are, (1, 1, side, side) bool: false where they
    are padded, which has the same colour in the mask and in its opposite."""
    level = bright.astype(np.uint8) * 255
    with listening(ignore):  # the image itself has been reported
        both = encoded(run, [level, 255 - level]).mean(1)
    return (both[:1] > 0)[None] & (both[1:] <= 0)[None]


def enlarged(run: Run, pictures: Sequence[Any], factor: int) -> tuple[Tensor, Tensor]:
    """(low (B, C, h, w), low at the run's size): pictures that are `factor` times as small as the run's.

    Raises UserError for another factor or size, naming those that are accepted.
    """
    height, width = run.encoder.space.shape[1:]
    able = [f for f in range(2, min(height, width) + 1) if height % f == 0 and width % f == 0]
    if factor not in able:
        accepted = f"It takes {', '.join(map(str, able))}" if able else "No factor divides it"
        raise UserError(f"`upscale={factor}` is no factor of this model's size, {width}x{height}. {accepted}.")
    values = [picture(p) for p in pictures]
    for v, name in zip(values, pictures, strict=True):
        if v.shape[:2] != (height // factor, width // factor):
            shown = f"{name}: " if isinstance(name, str | Path) else ""
            raise UserError(
                f"{shown}`upscale={factor}` makes {width}x{height} of {width // factor}x{height // factor} pixels. "
                f"Given: {v.shape[1]}x{v.shape[0]}."
            )
    blown = [np.repeat(np.repeat(v, factor, 0), factor, 1) for v in values]
    start = encoded(run, blown)
    return e.blocks(start, factor), start
