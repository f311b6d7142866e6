"""Near duplicates among images, by the changes of their brightness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from afresh.core import NearDuplicate
from afresh.data.image.images import to_image

Pixels = NDArray[np.uint8]

SIDE = 8  # of the difference hash: SIDE x SIDE comparisons along rows and as many along columns
MAX_DIFFERENT = 8  # of the 128 comparisons, in two near duplicates
MAX_LEVELS = 6.0  # mean difference of two shrunken near duplicates, of 255, over red, green and blue
FLAT = 2.0  # levels; a smaller change of brightness counts as none
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue (ITU-R BT.601)
CHUNK = 512


def near_images(images: Sequence[Pixels]) -> list[NearDuplicate]:
    """Images (H, W, C) uint8 that look like an earlier one when shrunk: another size, another quality, a small edit.

    Two images are near duplicates if their difference hashes (whether brightness increases, is level or decreases from
    one cell to the next, along rows and along columns) differ in at most MAX_DIFFERENT of 128 places and the shrunken
    images differ by at most MAX_LEVELS on average, colours included. `similarity` is 1 - mean difference / 255. All
    pairs are compared: n^2 / 2 products of 384 numbers.
    """
    if len(images) < 2:
        return []
    small = np.stack([_shrink(image) for image in images])  # (N, SIDE + 1, SIDE + 1, 3)
    steps = difference_hash(small @ LUMA).astype(np.float32)  # (N, 128)
    flat = small.reshape(len(small), -1)
    # -1, 0, 1 as one-hot vectors, so that one matrix product counts the places that agree.
    hot = np.concatenate([steps > 0, steps < 0, steps == 0], 1).astype(np.float32)
    pairs: list[NearDuplicate] = []
    for start in range(0, len(hot), CHUNK):
        rows = hot[start : start + CHUNK]
        agree = rows @ hot[: start + len(rows)].T >= steps.shape[1] - MAX_DIFFERENT
        for second in range(start, start + len(rows)):
            pairs += _earliest(flat, np.flatnonzero(agree[second - start, :second]), second)
    return pairs


def _earliest(flat: NDArray[np.float32], candidates: NDArray[np.int64], second: int) -> list[NearDuplicate]:
    """The first candidate within MAX_LEVELS of `second`, searched in blocks because it is often an early one."""
    for start in range(0, len(candidates), CHUNK):
        block = candidates[start : start + CHUNK]
        distance = np.abs(flat[block] - flat[second]).mean(1)
        near = np.flatnonzero(distance <= MAX_LEVELS)
        if len(near):
            return [NearDuplicate(int(block[near[0]]), second, 1.0 - float(distance[near[0]]) / 255.0)]
    return []


def difference_hash(small: NDArray[np.float32]) -> NDArray[np.int8]:
    """Brightness (N, SIDE + 1, SIDE + 1) to its changes (N, 2 SIDE^2) in {-1, 0, 1}, along rows, then along columns."""
    across = np.diff(small, axis=2)[:, :SIDE]
    down = np.diff(small, axis=1)[:, :, :SIDE]
    steps = np.stack([across, down], 1).reshape(len(small), -1)
    return (np.sign(steps) * (np.abs(steps) >= FLAT)).astype(np.int8)


def _shrink(pixels: Any) -> NDArray[np.float32]:
    """Mean RGB colour of cells, (SIDE + 1, SIDE + 1, 3)."""
    cells = np.asarray(to_image(pixels).resize((SIDE + 1, SIDE + 1), Image.Resampling.BOX), dtype=np.float32)
    return np.repeat(cells[..., None], 3, axis=-1) if cells.ndim == 2 else cells
