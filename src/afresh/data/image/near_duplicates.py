"""Near duplicates among images, by the changes of their brightness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from afresh.core import NearDuplicate
from afresh.data.image.images import to_image

Pixels = NDArray[np.uint8]

SIDE = 8  # of the difference hash: SIDE x SIDE comparisons along rows and as many along columns
CELLS = SIDE + 1
FINE = 4 * CELLS  # pixels along either side of the thumbnail in which candidates are compared
MAX_DIFFERENT = 8  # of the 128 comparisons, in two near duplicates
MAX_LEVELS = 6.0  # mean difference of the cells of two near duplicates, of 255, over red, green and blue
# Of the brightness in their thumbnails, so that two pages of print or two drawings are not the same. Measured: of 4,000
# handwritten digits no two agree so well (159 pairs pass 0.9); images saved again as JPEG of quality 90 all do.
MIN_CORRELATION = 0.98
FLAT = 2.0  # levels; a smaller change of brightness counts as none
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue (ITU-R BT.601)
CHUNK = 512


def near_images(images: Sequence[Pixels]) -> list[NearDuplicate]:
    """Images (H, W, C) uint8 that look like an earlier one when shrunk: another size, another quality, a small edit.

    Two images are near duplicates if their difference hashes (whether brightness increases, is level or decreases from
    one cell to the next, along rows and along columns) differ in at most MAX_DIFFERENT of 128 places, and if
    `similarity` confirms it. All pairs are compared: n^2 / 2 products of 384 numbers.
    """
    if len(images) < 2:
        return []
    thumbnails = np.stack([thumbnail(image) for image in images])
    steps = difference_hash(thumbnails).astype(np.float32)  # (N, 128)
    # -1, 0, 1 as one-hot vectors, so that one matrix product counts the places that agree.
    hot = np.concatenate([steps > 0, steps < 0, steps == 0], 1).astype(np.float32)
    pairs: list[NearDuplicate] = []
    for start in range(0, len(hot), CHUNK):
        rows = hot[start : start + CHUNK]
        agree = rows @ hot[: start + len(rows)].T >= steps.shape[1] - MAX_DIFFERENT
        for second in range(start, start + len(rows)):
            for first in np.flatnonzero(agree[second - start, :second]):
                found = compared(thumbnails[first], thumbnails[second])
                if found:
                    pairs.append(NearDuplicate(int(first), second, found))
                    break
    return pairs


def thumbnail(pixels: Pixels) -> Pixels:
    """Mean RGB colour of cells, (FINE, FINE, 3) uint8."""
    small = np.asarray(to_image(pixels).resize((FINE, FINE), Image.Resampling.BOX))
    return np.repeat(small[..., None], 3, axis=-1) if small.ndim == 2 else small[..., :3]


def difference_hash(thumbnails: Pixels) -> NDArray[np.int8]:
    """Thumbnails (N, FINE, FINE, 3) to the changes of their brightness (N, 2 SIDE^2) in {-1, 0, 1}: along rows, then
    along columns."""
    small = cells(thumbnails) @ LUMA
    across = np.diff(small, axis=2)[:, :SIDE]
    down = np.diff(small, axis=1)[:, :, :SIDE]
    steps = np.stack([across, down], 1).reshape(len(small), -1)
    return (np.sign(steps) * (np.abs(steps) >= FLAT)).astype(np.int8)


def cells(thumbnails: Pixels) -> NDArray[np.float32]:
    """Mean colours of cells, (N, CELLS, CELLS, 3)."""
    size = FINE // CELLS
    found: NDArray[np.float32] = thumbnails.reshape(-1, CELLS, size, CELLS, size, 3).mean((2, 4), dtype=np.float32)
    return found


def coarse(images: Sequence[Pixels]) -> NDArray[np.float64]:
    """What a glance sees of images of any size, (n, D) in [0, 1]: the mean colours of cells, and the mean and the
    deviation of each channel, as many times as there are cells along a side."""
    small = cells(np.stack([thumbnail(pixels) for pixels in images])).astype(np.float64) / 255
    whole = [small.mean((1, 2)), small.std((1, 2))]
    return np.concatenate([small.reshape(len(small), -1), *(np.tile(w, (1, CELLS)) for w in whole)], 1)


def similarity(a: Pixels, b: Pixels) -> float:
    """Of two thumbnails: 1 - mean difference / 255, or 0 if they are not those of near duplicates."""
    steps = difference_hash(np.stack([a, b]))
    return compared(a, b) if int((steps[0] != steps[1]).sum()) <= MAX_DIFFERENT else 0.0


def compared(a: Pixels, b: Pixels) -> float:
    """The same where the difference hashes are known to agree."""
    if float(np.abs(np.subtract(*cells(np.stack([a, b])))).mean()) > MAX_LEVELS:
        return 0.0
    x, y = a.astype(np.float32), b.astype(np.float32)
    grey, other = (x @ LUMA).ravel(), (y @ LUMA).ravel()
    grey, other = grey - grey.mean(), other - other.mean()
    spread = float(grey.std() * other.std())
    if spread > FLAT**2 and float((grey * other).mean()) < MIN_CORRELATION * spread:
        return 0.0
    return 1.0 - float(np.abs(x - y).mean()) / 255.0
