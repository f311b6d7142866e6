"""The visible label of images.

Who publishes a deepfake has to say so visibly, at the latest when it is first seen (Regulation (EU) 2024/1689, article
50 (4) and (5)). The Code of Practice on it (10 June 2026) could be read through secondary sources alone: PPC Land ("EU
publishes free AI labelling icons"), AImpactful ("EU icons for labelling AI-generated content") and the documentation of
Drupal's module AI Disclosure ("Labels on images", which names measure 1.2.1 (c)). By them, a fixed icon is to be on the
picture itself, seen without any action and kept when it is downloaded; a corner will do, and the Commission's own icons
are optional. Those are not in this package: the label has their acronym, in white on black with a white rim, so that it
stands out from any picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from afresh.core import UserError

TEXT = "AI"
LEAST_SIDE = 32  # pixels of the shorter side: letters that can be read hide a tenth of a smaller picture
SHARE, LEAST_HEIGHT = 0.1, 12  # of the label's height in the shorter side, and the least in pixels


def visible_label(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image (H, W, C) of uint8 with 1 or 3 channels, and "AI" in its lower right corner.

    The label is a tenth of the shorter side high, and at least 12 pixels. Raises UserError for other arrays and for
    images whose shorter side has less than 32 pixels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise UserError(
            "Images with a label are arrays (height, width, channels) of uint8 with 1 or 3 channels. "
            f"Given: {pixels.dtype} {pixels.shape}."
        )
    height, width = pixels.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise UserError(
            f"An image of {width} x {height} pixels is too small for a label that can be read: its shorter side needs "
            f"{LEAST_SIDE} pixels. Enlarge the image first, or put the label beside it where it is shown."
        )
    grey = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    label = _label(max(LEAST_HEIGHT, round(SHARE * min(height, width))))
    margin = max(1, label.height // 6)
    picture.paste(
        label if grey else label.convert("RGB"), (width - margin - label.width, height - margin - label.height)
    )
    marked = np.asarray(picture)
    return marked[:, :, None] if grey else marked


def _label(height: int) -> Image.Image:
    """Grey, of a height in pixels. The letters fill 60% of it."""
    rim, capital = max(1, height // 16), round(0.6 * height)
    _, top, _, bottom = ImageFont.load_default(100).getbbox(TEXT)
    font = ImageFont.load_default(100 * capital / (bottom - top))
    left, top, right, bottom = font.getbbox(TEXT)
    width = round(right - left + 0.6 * height)
    label = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(label)
    draw.rectangle((rim, rim, width - 1 - rim, height - 1 - rim), fill=0)
    # at whole pixels, so that thin strokes stay white
    draw.text((round((width - left - right) / 2), round((height - top - bottom) / 2)), TEXT, fill=255, font=font)
    return label
