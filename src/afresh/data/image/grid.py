"""Many pictures on one: a grid as PNG, with captions, and a preview of coloured half blocks for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.color import Color
from rich.style import Style
from rich.text import Text

Pixels = NDArray[np.uint8]  # (H, W, C), C = 1 or 3
GAP = 2  # pixels between pictures, before enlarging
PAPER, INK = (255, 255, 255), (60, 60, 60)
FONT = 11  # pixels, of captions


def image_grid(
    pictures: Sequence[Pixels],
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Pictures of one height and width, row by row, on white.

    columns: a square grid when None. captions: one a picture, cut to its width with an ellipsis. scale: whole
    enlargement without smoothing; None = so that a picture is about 64 pixels wide.

    Raises ValueError for no pictures, unequal sizes, or a number of captions that is not that of pictures.
    """
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    height, width = pictures[0].shape[:2]
    if any(p.shape[:2] != (height, width) for p in pictures):
        raise ValueError("the pictures of a grid must have one size")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"{len(captions)} captions for {len(pictures)} pictures")
    across = min(len(pictures), columns or math.ceil(math.sqrt(len(pictures))))
    down = math.ceil(len(pictures) / across)
    zoom = scale or max(1, round(64 / width))
    gap, foot = GAP * max(1, zoom // 2), FONT + 4 if captions else 0
    cell_w, cell_h = width * zoom + gap, height * zoom + foot + gap
    sheet = Image.new("RGB", (across * cell_w + gap, down * cell_h + gap), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for i, pixels in enumerate(pictures):
        left, top = gap + i % across * cell_w, gap + i // across * cell_h
        image = to_image(pixels)
        sheet.paste(image.resize((width * zoom, height * zoom), Image.Resampling.NEAREST), (left, top))
        if captions:
            text = _fit(captions[i], width * zoom, font)
            draw.text((left + width * zoom / 2, top + height * zoom + 1), text, INK, font, anchor="ma")
    return sheet


def write_grid(
    path: Path,
    pictures: Sequence[Pixels],
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    scale: int | None = None,
) -> None:
    """`image_grid` as a PNG file."""
    image_grid(pictures, columns, captions, scale).save(path, "PNG")


def terminal_grid(pictures: Sequence[Pixels], columns: int, width: int = 80) -> Text:
    """Pictures side by side in at most `width` characters; each character shows two pixels, one above the other."""
    sheet = np.asarray(image_grid(pictures, columns, scale=1))  # (H, W, 3)
    if sheet.shape[1] > width:
        height = max(1, round(sheet.shape[0] * width / sheet.shape[1]))
        sheet = np.asarray(Image.fromarray(sheet).resize((width, height), Image.Resampling.BOX))
    if len(sheet) % 2:
        sheet = np.concatenate([sheet, np.full((1, *sheet.shape[1:]), PAPER[0], np.uint8)])
    text = Text(no_wrap=True, end="")
    for y in range(0, len(sheet), 2):
        for above, below in zip(sheet[y].tolist(), sheet[y + 1].tolist(), strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    return text


def to_image(pixels: Pixels) -> Image.Image:
    """(H, W, 1 or 3) uint8 to a Pillow image of mode L or RGB."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text on one line, cut with an ellipsis to `width` pixels."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
