"""The label of an item that people see, hear or read, by its medium."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from afresh.core import Sound, UserError
from afresh.core.item_kind import ItemKind
from afresh.data.audio.waves import loudness_db, to_loudness

SPOKEN = Path(__file__).with_name("notice.flac")  # "This sound was made by AI."
PAUSE = 0.4  # seconds between the notice and the sound
QUIETEST, LOUDEST = -40.0, -14.0  # LKFS of the notice


def audible_label(sound: Sound) -> Sound:
    """The sound after a spoken notice in English and a pause, together 2.6 s.

    The notice is as loud as the sound (ITU-R BS.1770-5), but audible before one that is silent.
    """
    notice, rate = _notice()
    if rate != sound.rate:
        notice = np.asarray(soxr.resample(notice, rate, sound.rate), np.float32)
    target = float(np.clip(loudness_db(sound.samples, sound.rate), QUIETEST, LOUDEST))
    channels = sound.samples.shape[1]
    spoken = to_loudness(np.repeat(notice[:, None], channels, axis=1), sound.rate, target)
    pause = np.zeros((round(PAUSE * sound.rate), channels), np.float32)
    return Sound(np.concatenate((spoken, pause, sound.samples.astype(np.float32))), sound.rate)


@lru_cache(1)
def _notice() -> tuple[NDArray[np.float32], int]:
    samples, rate = soundfile.read(SPOKEN, dtype="float32")
    return samples, rate


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


NOTICE = "This text was made by AI."


def labelled_text(text: str) -> str:
    """A text with a plain sentence in front, in a paragraph of its own."""
    return f"{NOTICE}\n\n{text}"


LABELS: Mapping[str, Callable[[Any], Any]] = {"image": visible_label, "sound": audible_label, "text": labelled_text}


def labelled(kind: ItemKind, value: Any) -> Any:
    """An item with the label that AI made it: letters in an image, a notice before a sound, a sentence before a text.
    Raises UserError for items of other media, and for images that are too small."""
    label = LABELS.get(kind.medium or "")
    if label is None:
        raise UserError(
            f"{kind.plural.capitalize()} have no label that people see: images, sounds and texts have. What is written "
            "is signed in any case. Leave `label_ai` out.",
            "no_label",
        )
    return label(value)
