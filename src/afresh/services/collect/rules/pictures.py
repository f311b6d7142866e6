"""Images: how large, how sharp and how colourful they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from afresh.data.image.images import Pixels
from afresh.services.collect.extract.media import decoded
from afresh.services.collect.record import Record
from afresh.services.collect.rules import Amount, Count, Verdict, rule

SIDE = 512  # pixels; longer sides are reduced, so that photographs of all sizes are compared
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
IMAGE = ("image",)
GREY = 4.0  # the mean difference between the channels, of 255, below which an image counts as grey


@dataclass(frozen=True)
class PictureStatistics:
    """Numbers of an image. height, width: pixels. contrast: the largest standard deviation of a channel, 0 to 127.5.
    sharpness: variance of the Laplacian of the brightness (Pech-Pacheco et al. 2000). colour: mean difference between
    the largest and the smallest channel, 0 to 255."""

    height: int
    width: int
    contrast: float
    sharpness: float
    colour: float

    @property
    def aspect(self) -> float:
        """The longer side divided by the shorter one."""
        return max(self.height, self.width) / min(self.height, self.width)


@lru_cache(maxsize=1)
def look(content: bytes) -> PictureStatistics:
    """The numbers of an image file."""
    pixels: Pixels = decoded("image", content)
    height, width = pixels.shape[:2]
    step = max(1, -(-max(height, width) // SIDE))
    small = _reduced(pixels, step)
    grey = small @ LUMA if small.shape[2] == 3 else small[..., 0]
    colour = float((small.max(axis=2) - small.min(axis=2)).mean())
    return PictureStatistics(height, width, float(small.std(axis=(0, 1)).max()), laplacian_variance(grey), colour)


def _reduced(pixels: Pixels, step: int) -> NDArray[np.float32]:
    """Means of squares of `step` pixels; what is left at the right and at the bottom is cut off."""
    height, width, channels = pixels.shape
    step = min(step, height, width)
    cut = pixels[: height // step * step, : width // step * step]
    squares = cut.reshape(height // step, step, width // step, step, channels)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32))


def laplacian_variance(grey: NDArray[np.float32]) -> float:
    """The variance over the inner pixels (H, W) of the sum of four neighbours minus four times the pixel."""
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    return float((grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner).var())


@rule(IMAGE)
def image_numbers(record: Record) -> Verdict:
    """Size, contrast, sharpness and colour are noted as scores."""
    found = look(record.content or b"")
    return record.scored(
        image_height=found.height,
        image_width=found.width,
        image_contrast=round(found.contrast, 2),
        image_sharpness=round(found.sharpness, 2),
        image_colour=round(found.colour, 2),
    )


@rule(IMAGE, on=False, value=64, accepts=Count)
def image_small(record: Record, value: int) -> Verdict:
    """The shorter side has at least so many pixels."""
    found = look(record.content or b"")
    return record if min(found.height, found.width) >= value else f"{found.width} x {found.height} pixels"


@rule(IMAGE, value=8.0, accepts=Amount)
def image_aspect(record: Record, value: float) -> Verdict:
    """The longer side is at most so many times the shorter one; banners are longer."""
    found = look(record.content or b"")
    return (
        record
        if found.aspect <= value
        else f"{found.width} x {found.height} pixels: one side is {found.aspect:.1f} times the other"
    )


@rule(IMAGE, value=1.0, accepts=Amount)
def image_blank(record: Record, value: float) -> Verdict:
    """The pixels of a channel have a standard deviation of at least so much, of 255."""
    contrast = look(record.content or b"").contrast
    return record if contrast >= value else f"its pixels have a standard deviation of {contrast:.2f} of 255"


@rule(IMAGE, on=False, value=50.0, accepts=Amount)
def image_blurred(record: Record, value: float) -> Verdict:
    """The variance of the Laplacian of the brightness is at least so much (Pech-Pacheco et al. 2000), for images
    reduced to {SIDE} pixels; drawings and photographs differ, so look at the scores first."""
    found = look(record.content or b"")
    return record if found.sharpness >= value else f"the variance of its Laplacian is {found.sharpness:.1f}"


@rule(IMAGE, on=False)
def image_grey(record: Record) -> Verdict:
    """Images are left out whose channels differ by less than {GREY:.0f} of 255 on average."""
    return record if look(record.content or b"").colour >= GREY else "it has no colours"
