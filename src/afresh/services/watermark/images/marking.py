"""The imperceptible mark of images: projections of blocks are moved to secret places on a circle.

An image is cut into blocks of 8 x 8 pixels. In each block three projections of the luminance are measured, each onto a
few low frequencies of the block's cosine transform, so that they outlast JPEG and a halving of the size. A projection p
stands for the angle 2 pi p / STEP. The mark moves it to a secret angle, or to the opposite one, which is a bit (spread
transform dither modulation: Chen and Wornell 2001, "Quantization index modulation", IEEE Trans. Inf. Theory 47, sec.
V-B). Since the image itself says how far a projection is from the nearest such place, it does not disturb the reading,
as it would if a pattern were added: measured on photographs of 64 x 64 pixels, that took 10 dB more.

The secret angles repeat every 8 blocks in both directions, so that a crop of a larger image still holds all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import shake_256

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from afresh.core import UserError
from afresh.services.watermark import check_key

BLOCK, PERIOD = 8, 8  # pixels of a block, blocks after which the secret angles repeat
TILE = BLOCK * PERIOD
STEP = 30.0  # levels of 255: what a projection must move by to come to the same angle
# The frequencies of each projection, in half periods a block, down and right:
GROUPS = (((0, 1), (2, 1), (0, 2)), ((1, 0), (1, 2), (2, 0)), ((1, 1), (2, 2)))
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. ITU-R BT.601, as in JPEG
MOST_BITS = 32
CAPACITIES = ((49, MOST_BITS), (16, 8), (4, 0))  # from so many different blocks on, so many bits
TEXTURE, LEAST_WEIGHT = 2.0, 0.1  # the deviation of a block that counts fully, and what a constant one counts
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Secret:
    """What a key says of three projections of 8 x 8 blocks: `phasors` of their angles, complex of modulus 1, and the
    number of the bit that each bears, by how many bits there are. All (3, 8, 8)."""

    phasors: NDArray[np.complex64]
    bits: dict[int, NDArray[np.int64]]


def capacity(height: int, width: int) -> int | None:
    """How many bits of payload an image of this size in pixels bears: 32, 8, or 0 where its mark says only that it is
    there; None for images that are too small to be marked."""
    rows, columns = min(height // BLOCK, PERIOD), min(width // BLOCK, PERIOD)
    return None if min(rows, columns) < 2 else next(bits for least, bits in CAPACITIES if rows * columns >= least)


@lru_cache(16)
def secret_of(key: bytes) -> Secret:
    """Raises UserError for keys that are too short or too long."""
    check_key(key, "a mark")
    shape = len(GROUPS), PERIOD, PERIOD
    count = len(GROUPS) * PERIOD**2
    # SHAKE256 (FIPS 202): the same numbers in every version of Python and NumPy
    angles, order = np.frombuffer(shake_256(b"afresh: mark of images\0" + key).digest(8 * count), "<u4").reshape(2, -1)
    phasors = np.exp(2j * np.pi * (angles + 0.5) / 2**32).astype(np.complex64).reshape(shape)
    rank = np.argsort(np.argsort(order, kind="stable"), kind="stable")
    return Secret(phasors, {bits: (rank % bits).reshape(shape) for _, bits in CAPACITIES if bits})


@lru_cache(32)
def cosines() -> Array:
    """The first functions of the orthonormal cosine transform of 8 pixels, (3, 8)."""
    table = np.sqrt(2 / BLOCK) * np.cos(np.pi * np.outer(np.arange(3), 2 * np.arange(BLOCK) + 1) / (2 * BLOCK))
    table[0] /= np.sqrt(2)
    return table.astype(np.float32)


@lru_cache(32)
def directions(passed: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Array:
    """The orthonormal directions (3, 64) of blocks onto which they are projected; longer ones where of the frequencies
    in either direction only a part has `passed`."""
    table, out = cosines(), np.zeros((len(GROUPS), BLOCK, BLOCK), np.float32)
    for direction, group in zip(out, GROUPS, strict=True):
        for sign, (down, right) in zip((1, -1, 1), group, strict=False):
            size = np.sqrt(len(group)) * passed[down] * passed[right]
            direction += sign * np.outer(table[down], table[right]) / size
    return out.reshape(len(GROUPS), -1)


def luminance(pixels: NDArray[np.uint8]) -> Array:
    """(H, W) of pixels (H, W, C) uint8 with 1 or 3 channels, in levels of 0 to 255. Raises UserError for other
    arrays."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise UserError(
            "Images with a mark are arrays (height, width, channels) of uint8 with 1 or 3 channels. "
            f"Given: {pixels.dtype} {pixels.shape}."
        )
    return luminance_of_levels(pixels.astype(np.float32))


def luminance_of_levels(levels: Array) -> Array:
    """The same of levels that need not be whole numbers."""
    return levels[:, :, 0] if levels.shape[2] == 1 else levels @ LUMINANCE


def blocks_of(light: Array) -> Array:
    """The whole blocks of a luminance, (rows, columns, 64)."""
    rows, columns = light.shape[0] // BLOCK, light.shape[1] // BLOCK
    whole = light[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return whole.swapaxes(1, 2).reshape(rows, columns, -1)


ROUNDS = 3  # of correction for what clipping takes away
HALVED = 0.35  # the weight of what is read after the size was halved, where an image has blocks to spare for that
# How much of the way a projection goes: in constant and in nearly constant blocks, the standard deviation in levels
# from which on it goes all of it, and in images of many tiles.
CONSTANT_MOVE, LEAST_MOVE, TEXTURED, LEAST_OF_MANY = 0.5, 0.6, 8.0, 0.6


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
    part = np.where(texture == 0, CONSTANT_MOVE, LEAST_MOVE + (1 - LEAST_MOVE) * np.minimum(1, texture / TEXTURED))
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
