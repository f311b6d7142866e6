"""The exact test for the mark of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import chdtrc, expit, ndtr, ndtri

from afresh.core.solver_progress import step
from afresh.services.watermark.images.marking import (
    BLOCK,
    GROUPS,
    LEAST_WEIGHT,
    PERIOD,
    STEP,
    TEXTURE,
    TILE,
    Array,
    Secret,
    blocks_of,
    capacity,
    cosines,
    directions,
    luminance,
    secret_of,
)

CERTAIN = 1e-12  # a p-value after which nothing else is tried
PLAIN, RESIZED, CROPPED = 0.5, 0.25, 0.25  # the shares of ways to read an image in the probability of a false alarm
PART = 512  # pixels, the side of the middle of an image that is read where there is much to try
PASSED = ((1.0, 1.0, 1.0), (1.0, 0.98, 0.92), (1.0, 0.93, 0.79))  # what halving by Lanczos's, cubic and linear filters
# leaves of the frequencies of a block
RATIOS = (3.0, 4.0, 1.5, 4 / 3, 0.5, 2 / 3, 0.75)  # of an earlier size to the size of the image, beside 2
# Longer sides in pixels from which an image may have come by any ratio up to MOST_RATIO, either way:
SIDES = (28, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
MOST_RATIO = 4.0
KEPT = 0.8  # the least share of a side that a crop is taken to leave where the number of bits depends on it
Phasors = NDArray[np.complex64]  # (..., 3, 8, 8)


class ImageEvidence(NamedTuple):
    """What speaks for a mark in an image.

    `p_value`: the probability of as much evidence in an image that was made without the key, at most; 1 where nothing
    could be tested. `payload`: the number that the mark bears if there is one, None where it bears none. `certainty`:
    of each bit of the payload, the lowest first, the probability that it is right if there is a mark.
    """

    p_value: float
    payload: int | None
    certainty: tuple[float, ...]


def image_evidence(pixels: NDArray[np.uint8], key: bytes) -> ImageEvidence:
    """Tests whether an image (H, W, C) of uint8 with 1 or 3 channels bears a mark of a key, one-sided.

    The image is read as it is, then as if its size had been changed (from twice as many pixels a side, from a few other
    ratios, and by any ratio from a few usual sizes), then as if it were a part of a larger one. The p-value of each way
    is divided by the share that this way has in the probability of a false alarm (Bonferroni), and the smallest counts.
    Raises UserError for other arrays, and keys that do not have 16 to 64 bytes.
    """
    light, secret = luminance(pixels), secret_of(key)
    best = ImageEvidence(1.0, None, ())
    for done, (phasors, bits, share) in enumerate(_ways(light), 1):
        step(done, done)
        found = best_of(phasors, secret, bits, share)
        if found.p_value < best.p_value:
            best = found
        if best.p_value < CERTAIN:
            break
    return best


def best_of(phasors: Phasors, secret: Secret, bits: int, share: float) -> ImageEvidence:
    """The most evidence among readings (N, 3, 8, 8), which have a share of the probability of a false alarm together.

    A phasor's angle is that of projections before the secret angle is taken off. The secret angles are independent and
    uniform, hence so are the differences d, for any image; x = Phi^-1(1 - |d| / pi) is then standard normal, and so is
    any sum of x with weights of squared sum 1 that do not depend on the key. Without payload there is one such sum; a
    bit has one each, whose sign it is, and their squares add up to chi-squared.
    """
    weights = np.abs(phasors)
    x = ndtri(1 - np.abs(np.angle(phasors * secret.phasors.conj())).clip(1e-6, np.pi - 1e-6) / np.pi) * weights
    if not bits:
        z = _normal(x.sum((1, 2, 3)), (weights**2).sum((1, 2, 3)))
        return ImageEvidence(_corrected(float(ndtr(-z.max())), share / len(z)), None, ())
    of = np.eye(bits, dtype=np.float32)[secret.bits[bits].ravel()]  # (192, bits)
    z = _normal(x.reshape(len(x), -1) @ of, (weights**2).reshape(len(x), -1) @ of)
    borne = (z != 0).sum(1)
    p_values = np.where(borne > 0, chdtrc(borne.clip(1), (z**2).sum(1)), 1.0)
    first = int(p_values.argmin())
    ones = z[first] < 0
    amplitude = np.sqrt(max(0.0, float((z[first] ** 2).mean()) - 1))
    return ImageEvidence(
        _corrected(float(p_values[first]), share / len(z)),
        sum(1 << i for i in np.flatnonzero(ones).tolist()),
        tuple(expit(2 * amplitude * np.abs(z[first])).tolist()),
    )


def _normal(sums: NDArray[np.floating], variances: NDArray[np.floating]) -> NDArray[np.floating]:
    """0 where there is nothing to be summed."""
    return np.where(variances > 0, sums / np.sqrt(np.where(variances > 0, variances, 1)), 0)


def _corrected(p_value: float, share: float) -> float:
    return min(1.0, p_value / share)


def _ways(light: Array) -> Iterator[tuple[Phasors, int, float]]:
    """Ways to read an image: phasors (N, 3, 8, 8), the number of bits, and the share of false alarms for the N."""
    height, width = light.shape
    bits = capacity(height, width)
    if bits is not None:
        yield read(light)[None], bits, PLAIN
    sizes = _earlier_sizes(height, width)
    for size, passed in sizes:
        bits = capacity(*size)
        assert bits is not None
        yield read(_resized(light, *size), passed)[None], bits, RESIZED / len(sizes)
    if capacity(height, width) is not None:
        top, left = (max(0, side - PART) // 2 for side in light.shape)
        shifted = read_shifted(light[top : top + PART, left : left + PART])
        whole = round(height / KEPT), round(width / KEPT)
        kinds = sorted({b for b in (capacity(height, width), capacity(*whole)) if b is not None})
        for bits in kinds:
            yield shifted, bits, CROPPED / len(kinds)


def read(light: Array, passed: tuple[float, ...] = PASSED[0]) -> Phasors:
    """(3, 8, 8): of all blocks at a place in a tile the sum of their phasors, textured blocks counting for more.
    `passed`: what is left of the frequencies of a block in either direction."""
    blocks = blocks_of(light)
    return _folded(_phasors(blocks @ directions(passed).T, blocks.std(-1)), PERIOD)


def read_shifted(light: Array) -> Phasors:
    """The same for each of the 64 x 64 places in a tile where the image may begin, (4096, 3, 8, 8)."""
    table, rows, columns = cosines(), light.shape[0] - BLOCK + 1, light.shape[1] - BLOCK + 1
    down = np.lib.stride_tricks.sliding_window_view(light, BLOCK, 0) @ table.T  # (rows, W, 3)
    both = np.lib.stride_tricks.sliding_window_view(down, BLOCK, 1) @ table.T  # (rows, columns, 3, 3)
    mixing = np.einsum("nij,ui,vj->nuv", directions().reshape(-1, BLOCK, BLOCK), table, table).reshape(len(GROUPS), -1)
    squares = sliding_sums(light**2) / BLOCK**2 - (sliding_sums(light) / BLOCK**2) ** 2
    phasors = _phasors(both.reshape(rows, columns, -1) @ mixing.T, np.sqrt(squares.clip(0)))
    at = (np.arange(TILE)[:, None] + BLOCK * np.arange(PERIOD)) % TILE  # the pixels of a tile's blocks, by shift
    return _folded(phasors, TILE)[:, at][:, :, :, at].transpose(1, 3, 0, 2, 4).reshape(-1, len(GROUPS), PERIOD, PERIOD)


def sliding_sums(x: Array) -> Array:
    """Over all 8 x 8 windows."""
    sums = np.pad(x.cumsum(0, np.float64), ((1, 0), (0, 0)))
    sums = np.pad((sums[BLOCK:] - sums[:-BLOCK]).cumsum(1), ((0, 0), (1, 0)))
    return sums[:, BLOCK:] - sums[:, :-BLOCK]


def _phasors(projections: Array, texture: Array) -> Phasors:
    weight = LEAST_WEIGHT + np.minimum(1, texture / TEXTURE)
    return (weight[..., None] * np.exp(2j * np.pi / STEP * projections)).astype(np.complex64)


def _folded(phasors: Phasors, period: int) -> Phasors:
    """(rows, columns, n) added up over periods in both directions, (n, period, period)."""
    rows, columns, n = phasors.shape
    whole = np.zeros((-(-rows // period) * period, -(-columns // period) * period, n), np.complex64)
    whole[:rows, :columns] = phasors
    return whole.reshape(-1, period, whole.shape[1] // period, period, n).sum((0, 2)).transpose(2, 0, 1)


def _earlier_sizes(height: int, width: int) -> list[tuple[tuple[int, int], tuple[float, ...]]]:
    """Sizes that an image may have had before it got this one, with what is left of the frequencies, none twice."""
    ways = [((2 * height + i, 2 * width + j), passed) for i in (0, 1) for j in (0, 1) for passed in PASSED]
    scales = [*RATIOS, *(side / max(height, width) for side in SIDES)]
    near = [s for s in scales if 1 / MOST_RATIO <= s <= MOST_RATIO]
    ways += [((round(height * s), round(width * s)), PASSED[0]) for s in near]
    return [w for w in dict.fromkeys(ways) if w[0] != (height, width) and capacity(*w[0]) is not None]


def _resized(light: Array, height: int, width: int) -> Array:
    """The middle of the image at another size, from a place where a tile begins."""
    top, left = (max(0, side - PART) // 2 // TILE * TILE for side in (height, width))
    rows, columns = min(height - top, PART), min(width - left, PART)
    down, right = light.shape[0] / height, light.shape[1] / width
    box = left * right, top * down, (left + columns) * right, (top + rows) * down
    picture = Image.fromarray(light).resize((columns, rows), Image.Resampling.LANCZOS, box)
    return np.asarray(picture)
