"""Images in requests and answers."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from afresh.data.files import FileError
from afresh.data.image.images import Pixels, full_size_image, open_image, to_image
from afresh.faces.http.errors import RefusedRequest

Format = Literal["png", "jpeg", "webp"]
MOST_PIXELS = 1 << 24  # of an image in a request: 4,096 x 4,096


def image_bytes(pixels: Pixels, kind: Format = "png", quality: int = 100) -> bytes:
    """The content of an image file. `quality`, 0 to 100, is that of JPEG and WebP, where 100 of WebP loses nothing."""
    buffer = io.BytesIO()
    image = to_image(pixels)
    if kind == "webp":
        image.save(buffer, "WEBP", quality=quality, lossless=quality == 100)
    elif kind == "jpeg":
        image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality == 100 else -1)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def image_size(content: bytes, param: str) -> tuple[int, int]:
    """Width and height of an image file by its header. Raises Refused if the image is invalid or too large."""
    try:
        with open_image(content) as image:
            width, height = image.size
    except (FileError, OSError) as error:
        raise RefusedRequest(400, f"{param} cannot be read as an image: {error}.", "invalid_image", param) from None
    if width * height > MOST_PIXELS:
        message = f"{param} has {width}x{height} pixels, and at most {MOST_PIXELS:,} are read. Make it smaller."
        raise RefusedRequest(400, message, "image_too_large", param)
    return width, height


def read_image(content: bytes, param: str) -> Pixels:
    """The pixels (H, W, 1 or 3) of an image file, over white. Raises Refused as `image_size`, and if it is damaged."""
    image_size(content, param)
    try:
        return full_size_image(content).pixels
    except (FileError, OSError) as error:
        raise RefusedRequest(400, f"{param} cannot be read as an image: {error}.", "invalid_image", param) from None


def transparent(content: bytes) -> NDArray[np.bool_] | None:
    """Which pixels (H, W) of an image file that `read_image` accepts are fully transparent; None if none is."""
    with open_image(content) as image:
        if not image.has_transparency_data:
            return None
        alpha = np.asarray(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A"))
    return alpha == 0 if bool((alpha == 0).any()) else None


def from_base64(text: str, param: str) -> bytes:
    """The bytes of a text in base64, which may be a data URL. Raises Refused if it is not valid."""
    head, comma, rest = text.partition(",")
    try:
        return base64.b64decode(rest if comma and head.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedRequest(400, f"{param} is not valid base64.", "invalid_base64", param) from None
