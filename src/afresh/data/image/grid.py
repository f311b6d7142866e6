"""Grids of images: as one image with captions, and as coloured half blocks for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field
from rich.color import Color
from rich.style import Style
from rich.text import Text

from afresh.data.image.images import Pixels, to_image
from afresh.data.image.lettering import Lettering

GAP = 2  # pixels between images, before enlarging
PAPER, INK = (255, 255, 255), (60, 60, 60)
FONT = 11  # size of captions in pixels
WIDEST = 3  # times as many columns as rows, of a grid that would have holes if it were more nearly square
MOST_TURNS = 20  # captions that take turns and determine the columns


class GridSettings(BaseModel):
    """How samples stand together in one picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: int | None = Field(
        None,
        ge=1,
        le=400,
        description="pictures in each row of a grid; None: labels that take turns have a column each, a transition is "
        "one row, and other grids are nearly square, without holes if possible",
    )
    scale: int | None = Field(
        None, ge=1, le=64, description="how many times a grid enlarges each pixel; None: to about 64 pixels a picture"
    )
    captions: bool = Field(True, description="whether labels stand below the pictures of a grid")


def fitting_columns(count: int, captions: Sequence[str] | None = None) -> int:
    """The columns of a grid of `count` images. Captions that take turns have a column each. Otherwise the grid is the
    most nearly square one without holes, if that is at most WIDEST times as wide as high, else the most nearly square
    one."""
    if captions and len(set(captions)) > 1:
        for turns in range(2, min(count // 2, MOST_TURNS) + 1):
            if count % turns == 0 and list(captions) == list(captions[:turns]) * (count // turns):
                return turns
    square = math.ceil(math.sqrt(count))
    whole = (n for n in range(square, count + 1) if count % n == 0 and n * n <= WIDEST * count)
    return next(whole, square)


def image_grid(
    images: Sequence[Pixels],
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Images of equal height and width, row by row, on white.

    columns: those of `fitting_columns` if None. captions: one per image, shortened to its width with an ellipsis.
    scale: an integer enlargement without smoothing; None enlarges images to about 64 pixels.

    Raises ValueError if there are no images, their sizes differ, or the number of captions is not that of the images.
    """
    if not images:
        raise ValueError("a grid needs at least one image")
    height, width = images[0].shape[:2]
    if any(pixels.shape[:2] != (height, width) for pixels in images):
        raise ValueError("the images of a grid must have the same size")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images")
    across = min(len(images), columns or fitting_columns(len(images), captions))
    down = math.ceil(len(images) / across)
    zoom = scale or max(1, round(64 / width))
    gap, foot = GAP * max(1, zoom // 2), FONT + 4 if captions else 0
    cell_w, cell_h = width * zoom + gap, height * zoom + foot + gap
    sheet = Image.new("RGB", (across * cell_w + gap, down * cell_h + gap), PAPER)
    pen, letters = ImageDraw.Draw(sheet), Lettering(captions or (), FONT)
    for i, pixels in enumerate(images):
        left, top = gap + i % across * cell_w, gap + i // across * cell_h
        enlarged = to_image(pixels).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top))
        if captions:
            at = left + width * zoom / 2, top + height * zoom + 1
            letters.draw(pen, at, letters.shortened(captions[i], width * zoom), INK, "ma")
    return sheet


def terminal_grid(images: Sequence[Pixels], columns: int, width: int = 80) -> Text:
    """A grid of images as text of at most `width` columns; each character shows two pixels, one above the other."""
    sheet = np.asarray(image_grid(images, columns, scale=1))  # (H, W, 3)
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
