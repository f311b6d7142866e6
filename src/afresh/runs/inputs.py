"""Bring the images, sounds and masks that a user passes to a verb into the space of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Item, UserError, events
from afresh.core.events import ignore, listening
from afresh.core.results import SIDECAR
from afresh.data.files import FileError
from afresh.data.image.images import Pixels, full_size_array, full_size_image, pasted_back
from afresh.engine.sampling import energy as e
from afresh.runs.run import Run
from afresh.services.provenance.work import Ingredient

MOST_PASTED = 1 << 27  # pixels of edits at the size of their pictures
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def pixels_of(image: Any, background: tuple[int, int, int] = WHITE) -> Pixels:
    """Return the pixels (H, W, 1 or 3) uint8 of an image file or array at full size, composed over the background.

    Raises UserError if the file cannot be read as an image.
    """
    if isinstance(image, np.ndarray):
        array = image if image.ndim == 3 else image[..., None]
        return full_size_array(array, background).pixels if array.shape[-1] == 4 else array
    path = Path(image)
    try:
        return full_size_image(path, background).pixels
    except (FileError, OSError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}.") from None


def encoded(run: Run, inputs: Sequence[Any]) -> Tensor:
    """Encode images or sounds, or files of them, as the run does: (B, *shape) float32 in the space of its modality.
    Sequences, such as molecules and texts, are given themselves: (B, T) int64, each with its `end`.

    Emits events for what had to be changed, such as the size of an image. Raises UserError if a file cannot be read,
    and for a sequence that is empty, longer than a window, or not valid.
    """
    if run.encoder.space.kind == "tokens" and all(isinstance(i, str | Path) for i in inputs):
        return torch.nn.utils.rnn.pad_sequence(
            [sequence(run, str(i)) for i in inputs], batch_first=True, padding_value=run.encoder.space.special["end"]
        )
    values = [Path(i) if isinstance(i, str | Path) else i for i in inputs]
    examples = run.encoder.encode([Item(checked_array(v) if isinstance(v, np.ndarray) else v) for v in values])
    return examples.x.float() * examples.scale + examples.shift


def ingredient(run: Run, value: Any) -> Ingredient:
    """What is recorded of an input in what is made from it: the file, with the signed statements in it and beside it,
    or of an array, a sound or a text what it is as a file."""
    kind = run.encoder.kind
    if isinstance(value, str | Path) and not kind.inline:
        path = Path(value)
        beside = path.with_name(path.name + SIDECAR)
        return Ingredient.of(path.name, path.read_bytes(), beside.read_bytes() if beside.is_file() else None)
    return Ingredient.of(f"input{kind.suffix or '.txt'}", kind.encode(value))


def sequence(run: Run, text: str) -> Tensor:
    """The tokens (T,) int64 of a text or molecule, up to its `end`."""
    encoder, most = run.encoder, run.space.shape[0] if run.space.kind == "tokens" else run.encoder.space.shape[0]
    if not text.strip() or not encoder.valid(text):
        raise UserError(f"{text!r} is not valid here. Give {encoder.kind.plural} as this model makes them.")
    tokens = tokens_of(run, text)
    tokens = tokens_of(run, encoder.decode(tokens)[0])  # a molecule as the model learnt it
    if len(tokens) > most:
        raise UserError(
            f"{text[:60]!r} has {len(tokens)} tokens, and this model reads at most {most}. Give a shorter one."
        )
    return tokens


def tokens_of(run: Run, text: str) -> Tensor:
    examples = run.encoder.encode([Item(text)])
    return (examples.x if examples.mask is None else examples.x[examples.mask]).long()


def checked_array(image: NDArray[Any]) -> Pixels:
    """An image that is given as an array, (H, W) or (H, W, C), as (H, W, C). Raises UserError for numbers other than
    uint8, whose range is not known."""
    if image.dtype != np.uint8:
        raise UserError(
            f"An image has values of the type {image.dtype}. Give an array (H, W, C) of uint8, from 0 to 255.",
            "not_uint8",
        )
    return image[..., None] if image.ndim == 2 else image


def fitted_mask(run: Run, mask: Any, images: Sequence[Any]) -> Tensor:
    """Return a mask (1, 1, H, W) bool of the run's size, true where values may change.

    Bright pixels of the mask may change; transparent ones stay. The mask has the size of the run's images, or that of
    `images`, in which case it is cropped or padded as they are. Raises UserError for any other size, because a resized
    mask would not match its image, and for a mask that is all black or all white.
    """
    bright = bright_pixels(mask)
    height, width = run.encoder.space.shape[1:]
    change = torch.from_numpy(bright)[None, None]
    if bright.shape != (height, width):
        sizes = {pixels_of(image).shape[:2] for image in images}
        if sizes != {bright.shape}:
            shown = " and ".join(f"{w}x{h}" for h, w in sorted(sizes))
            raise UserError(
                f"The mask has {bright.shape[1]}x{bright.shape[0]} pixels; this model's images have {width}x{height} "
                f"and the given ones {shown}. Give a mask of either size, white where the image may change."
            )
        change = as_seen(run, bright)
    if not bool(change.any()) or bool(change.all()):
        what = "black (or transparent): nothing may change" if not bool(change.any()) else "white: nothing is kept"
        raise UserError(f"The mask is all {what}. Paint white where the image may change and black elsewhere.")
    return change


def at_full_size(
    run: Run, images: Sequence[Any], before: Sequence[Pixels], after: Sequence[Pixels], mask: Any
) -> list[Pixels]:
    """Each image at its own size, with the changes from `before` to `after`, which are images of the run's size in the
    order of `images`, as many of each. mask: as in `fitted_mask`, or None."""
    encoder: Any = run.encoder
    frame, each = encoder.options.frame(encoder.space.shape[1]), len(after) // len(images)
    bright = None if mask is None else bright_pixels(mask)
    pictures = [pixels_of(image, frame.background) for image in images]
    if (total := each * sum(p.shape[0] * p.shape[1] for p in pictures)) > MOST_PASTED:
        raise UserError(f"The edits have {total:,} pixels at full size, of at most {MOST_PASTED:,}. Ask for fewer.")
    return [
        pasted_back(pictures[i // each], frame, old, new, bright)
        for i, (old, new) in enumerate(zip(before, after, strict=True))
    ]


def bright_pixels(mask: Any) -> NDArray[np.bool_]:
    """Where a mask (H, W) is more white than black; transparent pixels are black."""
    pixels = pixels_of(mask, BLACK)
    found: NDArray[np.bool_] = pixels.astype(np.float32).mean(-1) > (0.5 if pixels.dtype == bool else 127.5)
    return found


def as_seen(run: Run, bright: NDArray[np.bool_]) -> Tensor:
    """Bring a mask (H, W) to the run's size in the way that images are brought to it: (1, 1, side, side) bool.

    The result is false where images are padded: padding has the same colour in a mask and in its inverse.
    """
    level = bright.astype(np.uint8) * 255
    with listening(ignore):  # changes to the image itself have already been reported
        both = encoded(run, [level, 255 - level]).mean(1)
    return (both[:1] > 0)[None] & (both[1:] <= 0)[None]


def enlarged(run: Run, images: Sequence[Any], factor: int) -> tuple[Tensor, Tensor]:
    """Encode images as smaller ones, by `factor` than the run's. An image of another size is cropped and resized, as
    for any other edit.

    Returns them at the smaller size (B, C, h, w) and enlarged to the run's size. Warns about images that are larger,
    whose details are lost. Raises UserError, naming what is accepted, if the factor does not divide the run's size.
    """
    height, width = run.encoder.space.shape[1:]
    able = [f for f in range(2, min(height, width) + 1) if height % f == 0 and width % f == 0]
    if factor not in able:
        accepted = f"It takes {', '.join(map(str, able))}" if able else "No factor divides it"
        raise UserError(f"`upscale={factor}` does not divide this model's size, {width}x{height}. {accepted}.")
    values = [pixels_of(image) for image in images]
    for i, (v, image) in enumerate(zip(values, images, strict=True)):
        if min(v.shape[:2]) > height // factor:
            events.warning(
                f"{image if isinstance(image, str | Path) else 'An image'} has {v.shape[1]}x{v.shape[0]} pixels and is "
                f"first reduced to {width // factor}x{height // factor}, which `upscale={factor}` enlarges to this "
                f"model's {width}x{height}."
            )
        else:  # whole pixels, so that an image of exactly the smaller size stays as it is
            values[i] = np.repeat(np.repeat(v, factor, 0), factor, 1)
    start = encoded(run, values)
    return e.blocks(start, factor), start
