"""Putting the mark into images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from afresh.core import UserError
from afresh.services.watermark.images.lattice import (
    BLOCK,
    MOST_BITS,
    PERIOD,
    STEP,
    Array,
    blocks_of,
    capacity,
    directions,
    luminance,
    luminance_of_levels,
    secret_of,
)

ROUNDS = 3  # of correction for what clipping takes away
HALVED = 0.35  # the weight of what is read after the size was halved, where an image has blocks to spare for that
# How much of the way a projection goes: in constant and in nearly constant blocks, the standard deviation in levels
# from which on it goes all of it, and in images of many tiles.
CONSTANT_MOVE, LEAST_MOVE, TEXTURE, LEAST_OF_MANY = 0.5, 0.6, 8.0, 0.6


def mark_image(pixels: NDArray[np.uint8], key: bytes, payload: int) -> NDArray[np.uint8]:
    """Marks an image (H, W, C) of uint8 with 1 or 3 channels with a number of 32 bits.

    The image bears the lowest `capacity(H, W)` bits of the payload: 32 from 56 x 56 pixels on, 8 from 32 x 32, and from
    16 x 16 only that there is a mark. Blocks move less towards their secret angles the smoother they are, and the more
    of them there are. Marking again, with any key, replaces the mark. Raises UserError for other arrays, smaller
    images, a payload that is not 0 to 2^32 - 1, and keys that do not have 16 to 64 bytes.
    """
    light, secret = luminance(pixels), secret_of(key)
    height, width = light.shape
    bits = capacity(height, width)
    if bits is None:
        raise UserError(
            f"An image of {width} x {height} pixels is too small for a mark, which needs {2 * BLOCK} x {2 * BLOCK}. "
            "Leave it unmarked, or enlarge it first."
        )
    if not 0 <= payload < 1 << MOST_BITS:
        raise UserError(f"The payload of a mark is a number from 0 to 2^{MOST_BITS} - 1. Given: {payload}.")
    places = np.angle(secret.phasors) / (2 * np.pi)
    if bits:
        places = places + 0.5 * ((payload >> secret.bits[bits]) & 1)
    blocks = blocks_of(light)
    rows, columns = blocks.shape[:2]
    goals = STEP * _repeated(places, rows, columns)

    halved = HALVED if bits == MOST_BITS else 0.0
    read = _projections(light, halved)
    goal = read + _move(blocks) * (goals + STEP * np.rint((read - goals) / STEP) - read)
    marked = levels = pixels.astype(np.float32)
    change: Array = np.zeros_like(light)
    for _ in range(ROUNDS):
        change = change + _image((goal - read) @ directions(), light.shape)
        marked = np.clip(levels + change[:, :, None], 0, 255)
        now = luminance_of_levels(marked)
        change, read = now - light, _projections(now, halved)
    return np.rint(marked).astype(np.uint8)


def _move(blocks: Array) -> Array:
    """Which part of the way to a secret angle each block goes, (rows, columns, 1)."""
    texture = blocks.std(-1, keepdims=True)
    of_many = (blocks.shape[0] * blocks.shape[1] / PERIOD**2) ** -0.25
    part = np.where(texture == 0, CONSTANT_MOVE, LEAST_MOVE + (1 - LEAST_MOVE) * np.minimum(1, texture / TEXTURE))
    return (part * min(1.0, max(LEAST_OF_MANY, of_many))).astype(np.float32)


def _projections(light: Array, halved: float) -> NDArray[np.floating]:
    """Those of blocks (rows, columns, 3), and with a weight those that are read after the size was halved."""
    if not halved:
        return blocks_of(light) @ directions().T
    height, width = light.shape
    smaller = Image.fromarray(light).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    seen = np.asarray(smaller.resize((width, height), Image.Resampling.LANCZOS))
    return blocks_of(light + halved * (seen - light)) @ directions().T


def _repeated(table: NDArray[np.floating], rows: int, columns: int) -> Array:
    """(n, 8, 8) by place in a tile as (rows, columns, n) by block."""
    each = table[:, np.arange(rows) % PERIOD][:, :, np.arange(columns) % PERIOD]
    return np.moveaxis(each, 0, -1).astype(np.float32)


def _image(blocks: NDArray[np.floating], shape: tuple[int, ...]) -> Array:
    """Blocks (rows, columns, 64) in their places, and 0 where there are no whole ones."""
    rows, columns = blocks.shape[:2]
    out = np.zeros(shape, np.float32)
    cut = blocks.reshape(rows, columns, BLOCK, BLOCK).swapaxes(1, 2)
    out[: rows * BLOCK, : columns * BLOCK] = cut.reshape(rows * BLOCK, columns * BLOCK)
    return out
