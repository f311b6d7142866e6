"""What a listing shows of itself: a small picture of an image or of the wave of a sound, or the beginning of a text."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from afresh.core import UserError
from afresh.core.safe_text import visible
from afresh.data.audio.sounds import SUFFIXES as SOUNDS
from afresh.data.audio.sounds import read_sound
from afresh.data.audio.views import sound_image
from afresh.data.files import FileError
from afresh.data.image.images import SUFFIXES as IMAGES
from afresh.data.image.images import full_size_image, to_image
from afresh.services.catalogue.listing import Preview

SIDE = 640, 480  # pixels that a thumbnail fits into
SECONDS = 60.0  # of a sound that are drawn
READ, SHOWN = 1 << 14, 700  # bytes of a text that are read, and characters of it that are shown


def preview_of(file: Path, given: bool = False) -> tuple[Preview, bytes | None] | None:
    """The preview of a file, without the name of its thumbnail, and that thumbnail (WebP) unless it is a text; None for
    a file of another kind.

    Raises UserError for a picture or a sound that cannot be read, and, if it was `given` as a preview, for other kinds.
    """
    suffix = file.suffix.casefold()
    if suffix in IMAGES:
        try:
            return Preview(kind="image"), thumbnail(to_image(full_size_image(file).pixels))
        except (FileError, OSError) as error:
            raise UserError(f"{file} cannot be shown: {error}. Give another preview.", "preview") from None
    if suffix in SOUNDS:
        sound = read_sound(file, rate=16_000, channels=1, max_seconds=SECONDS)
        return Preview(kind="sound"), thumbnail(Image.fromarray(sound_image(sound)))
    with file.open("rb") as stream:
        head = stream.read(READ)
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.start > len(head) - 4 and len(head) == READ  # in the middle of a character
        text = head[: error.start].decode("utf-8") if cut else "\0"
    if "\0" not in text and text.strip():
        shown = min(SHOWN, len(text) if given else file.stat().st_size // 3)  # what is sold is not shown whole
        return Preview(kind="text", excerpt=visible(text[:shown])), None
    if given:
        raise UserError(f"{file} cannot be shown: it is no picture, sound or text. Give another preview.", "preview")
    return None


def thumbnail(image: Image.Image) -> bytes:
    """A picture as WebP that fits into SIDE. One of a few pixels is enlarged by a whole factor and stays sharp."""
    factor = min(SIDE[0] // image.width, SIDE[1] // image.height, 16)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail(SIDE, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=82, method=2)
    return stream.getvalue()
