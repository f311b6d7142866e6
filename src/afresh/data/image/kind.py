"""Images as items: uint8 arrays (H, W, C), C = 1 or 3."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from pydantic import Field

from afresh.core import Descriptors, ItemKind, Preview
from afresh.data.files import FileError
from afresh.data.image import SUFFIXES
from afresh.data.image.grid import GridSettings
from afresh.data.image.images import Pixels, full_size_image, to_image
from afresh.data.image.near_duplicates import coarse, near_images

BLANK = 2  # difference between the darkest and the lightest value of a blank image, of 255


class ImageResultSettings(GridSettings):
    """How images that were drawn are given back."""

    full_size: bool = Field(
        False,
        description="whether an edit is pasted back into the given picture at its own size; what a mask keeps, and "
        "what lies outside of the part that the model sees, stays as it is (`afresh edit`)",
    )


def digest(pixels: Pixels) -> str:
    head = repr((pixels.shape, str(pixels.dtype)))
    return hashlib.sha256(head.encode() + pixels.tobytes()).hexdigest()


def describe(pixels: Pixels) -> str:
    return f"an image {pixels.shape} of mean {float(pixels.mean()):.3g}"


def png_bytes(pixels: Pixels) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def decode(content: bytes) -> Pixels:
    """The pixels of an image file in its own size. Raises ValueError if it cannot be decoded."""
    try:
        return full_size_image(content).pixels
    except (FileError, OSError) as error:
        raise ValueError(str(error)) from None


def flaw(pixels: Pixels) -> str | None:
    """Whether every channel varies by at most BLANK levels."""
    return "have a single colour" if int(np.ptp(pixels, axis=(0, 1)).max()) <= BLANK else None


IMAGE = ItemKind(
    name="image",
    plural="images",
    view="image",
    digest=digest,
    describe=describe,
    previews=lambda images: [Preview(image=pixels) for pixels in images],
    size=lambda pixels: "x".join(map(str, pixels.shape)),
    unit="pixels",
    medium="image",
    hub_task=("unconditional-image-generation", "text-to-image"),
    encode=png_bytes,
    decode=decode,
    suffix=".png",
    suffixes=SUFFIXES,
    descriptors=Descriptors(coarse),
    near_duplicates=near_images,
    flaw=flaw,
    result_settings=ImageResultSettings,
)
