"""Putting the mark into images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from afresh.core import UserError
from afresh.watermark.images.lattice import (
    BLOCK,
    CAPACITIES,
    PERIOD,
    STEP,
    Array,
    blocks_of,
    capacity,
    directions,
    luminance,
    secret_of,
)

ROUNDS = 3  # of correction for what clipping and halving take away
HALVED = 0.35  # the weight of what is read after the size was halved, where an image has the blocks to spare
LEAST_MOVE, FLAT_MOVE, TEXTURE = 0.6, 0.5, 8.0
LEAST_SHARE = 0.6


def mark_image(pixels: NDArray[np.uint8], key: bytes, payload: int) -> NDArray[np.uint8]:
    """Marks an image (H, W, C) of uint8 with 1 or 3 channels with a number of 32 bits.

    The image bears the lowest `capacity(H, W)` bits of the payload: 32 from 56 x 56 pixels on, 8 from 24 x 24, and from
    16 x 16 only that there is a mark. Blocks move less towards their places the smoother they are, and the more blocks
    there are. Marking again, with any key, replaces the mark. Raises UserError for other arrays, smaller images, a
    payload that is not 0 to 2^32 - 1, and keys that do not have 16 to 64 bytes.
    """
    light, secret = luminance(pixels), secret_of(key)
    height, width = light.shape
    bits = capacity(height, width)
    if bits is None:
        raise UserError(
            f"An image of {width} x {height} pixels is too small for a mark, which needs {2 * BLOCK} x {2 * BLOCK}. "
            "Leave it unmarked, or enlarge it first."
        )
    if not 0 <= payload < 1 << 32:
        raise UserError(f"The payload of a mark is a number from 0 to 2^32 - 1. Given: {payload}.")
    rows, columns = height // BLOCK, width // BLOCK
    places = np.angle(secret.phasors) / (2 * np.pi)
    if bits:
        places = places + 0.5 * ((payload >> secret.bits[bits]) & 1)
    places = STEP * _repeated(places, rows, columns)

    texture = blocks_of(light).std(-1, keepdims=True)
    share = max(LEAST_SHARE, min(1.0, (rows * columns / PERIOD**2) ** -0.25))
    share = share * np.where(texture == 0, FLAT_MOVE, np.minimum(1, LEAST_MOVE + (1 - LEAST_MOVE) * texture / TEXTURE))
    halved = HALVED if bits == CAPACITIES[0][1] else 0.0
    marked, now = pixels.astype(np.float32), light
    goal = read = _projections(light, halved)
    for turn in range(ROUNDS):
        if turn:
            now = luminance_of(marked)
            read = _projections(now, halved)
        else:
            goal = read + share * (places + STEP * np.rint((read - places) / STEP) - read)
        change = now - light + _image((goal - read) @ directions(), light.shape)
        marked = np.clip(pixels + change[:, :, None], 0, 255)
    return np.rint(marked).astype(np.uint8)


def luminance_of(marked: Array) -> Array:
    return marked[:, :, 0] if marked.shape[2] == 1 else marked @ np.array([0.299, 0.587, 0.114], np.float32)


def _projections(light: Array, halved: float) -> Array:
    """Those of blocks (rows, columns, 3): a mean of what is read as it is and after the size was halved."""
    if not halved:
        return blocks_of(light) @ directions().T
    height, width = light.shape
    picture = Image.fromarray(light).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    seen = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    return blocks_of(light + halved * (seen - light)) @ directions().T


def _repeated(table: NDArray[np.floating], rows: int, columns: int) -> Array:
    """(n, 8, 8) by position in a tile as (rows, columns, n) by block."""
    each = table[:, np.arange(rows) % PERIOD][:, :, np.arange(columns) % PERIOD]
    return np.moveaxis(each, 0, -1).astype(np.float32)


def _image(blocks: Array, shape: tuple[int, int]) -> Array:
    """Blocks (rows, columns, 64) in their places, and 0 where there are no whole ones."""
    rows, columns = blocks.shape[:2]
    out = np.zeros(shape, np.float32)
    cut = blocks.reshape(rows, columns, BLOCK, BLOCK).swapaxes(1, 2)
    out[: rows * BLOCK, : columns * BLOCK] = cut.reshape(rows * BLOCK, columns * BLOCK)
    return out
