"""Pictures of series: curves of a window, and the fan of a forecast."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from afresh.data.image.lettering import Lettering

Pixels = NDArray[np.uint8]
Point = tuple[float, float]
LINES = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (140, 86, 75), (23, 190, 207))
CURVES = (160, 320)  # height and width of the picture of a window
WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 1000, 190, 80, 16, 24, 22  # of a fan: pixels of each panel and its margins
HEAD, SIZE, NARROWEST = 20, 12, 360  # pixels of the first line, of letters, and of the width of a panel
MOST_PANELS, MOST_ACROSS, ACROSS = 300, 4, ((1, 4), (2, 12), (3, 60))  # (panels in a row, for at most so many)
PAPER, INK, GRID = (255, 255, 255), (40, 40, 40), (225, 225, 225)
WIDE, NARROW, MIDDLE, PAST = (205, 221, 240), (142, 178, 221), (25, 80, 150), (70, 70, 70)


def curves(window: NDArray[Any]) -> Pixels:
    """A window (C, L) as a curve for each column, each between its least and its greatest value; gaps stay open."""
    height, width = CURVES
    image = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(image)
    x = np.linspace(2, width - 3, window.shape[1])
    for number, row in enumerate(window):
        there = row[np.isfinite(row)]
        if not len(there):
            continue
        low, high = float(there.min()), float(there.max())
        y = (height - 1) * (0.95 - 0.9 * (row - low) / ((high - low) or 1.0))
        for points in pieces(x, y):
            pen.line(points, LINES[number % len(LINES)], width=1)
    return np.asarray(image)


def pieces(x: NDArray[Any], y: NDArray[Any]) -> list[list[Point]]:
    """The points of a curve, one list for each piece without gaps."""
    out: list[list[Point]] = [[]]
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(b):
            out[-1].append((a, b))
        elif out[-1]:
            out.append([])
    return [points if len(points) > 1 else [*points, (points[0][0] + 1, points[0][1])] for points in out if points]


@dataclass(frozen=True)
class Fan:
    """What is drawn of one column: values before (P,), and quantiles .05, .25, .5, .75 and .95 of each later step,
    (5, H). `labels`: the times of the first value, of the first forecast and of the last one. `truth`: what came, (H,),
    if it is known."""

    name: str
    past: NDArray[Any]
    quantiles: NDArray[Any]
    labels: Sequence[str]
    truth: NDArray[Any] | None = None


def fan_chart(fans: Sequence[Fan]) -> bytes:
    """A PNG with a named panel for each column of each series, several in a row if there are many: the last values,
    then the median and bands that hold 50 and 90% of the futures. At most MOST_PANELS are drawn, which its first line
    says."""
    shown = fans[:MOST_PANELS]
    across = next((n for n, most in ACROSS if len(shown) <= most), MOST_ACROSS)
    width = max(WIDTH // across, NARROWEST)
    head = "median, 50% and 90% of the forecast" + (
        "; red: what came" if any(f.truth is not None for f in shown) else ""
    )
    head += f"; the first {len(shown):,} of {len(fans):,}" if len(shown) < len(fans) else ""
    letters = Lettering((fan.name for fan in shown), SIZE)
    image = Image.new("RGB", (width * across, HEAD + PANEL * -(-len(shown) // across)), PAPER)
    pen = ImageDraw.Draw(image)
    letters.draw(pen, (LEFT, 4), head, INK)
    for number, fan in enumerate(shown):
        panel(pen, letters, fan, number % across * width, HEAD + number // across * PANEL, width)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def panel(pen: Any, letters: Lettering, fan: Fan, edge: int, top: int, width: int) -> None:
    """Draw a fan into the part of a picture that begins at `edge` and `top`."""
    before, after = len(fan.past), fan.quantiles.shape[1]
    every = np.concatenate([fan.past, fan.quantiles.ravel(), [] if fan.truth is None else fan.truth])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    room = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    left, right, bottom = edge + LEFT, edge + width - RIGHT, top + PANEL - BOTTOM

    def place(step: Any, value: Any) -> tuple[Any, Any]:
        x = left + (right - left) * np.asarray(step) / max(1, before + after - 1)
        return x, bottom - (bottom - top - TOP) * (np.asarray(value) - low) / (high - low)

    for tick in ticks(low, high):
        _, y = place(0, tick)
        pen.line([(left, float(y)), (right, float(y))], GRID)
        letters.draw(pen, (left - 6, float(y)), f"{tick:g}", INK, "rm")
    steps = np.arange(before, before + after)
    # Bands begin at the last value that is known, so that the fan opens there.
    known = np.flatnonzero(np.isfinite(fan.past))
    if len(known) and known[-1] == before - 1:
        steps = np.concatenate([[before - 1], steps])
        quantiles = np.concatenate([np.full((5, 1), fan.past[-1]), fan.quantiles], 1)
    else:
        quantiles = fan.quantiles
    for low_row, high_row, colour in ((0, 4, WIDE), (1, 3, NARROW)):
        x, up = place(steps, quantiles[high_row])
        _, down = place(steps, quantiles[low_row])
        if len(x) > 1 and np.isfinite(up).all():
            pen.polygon(
                [*zip(x.tolist(), up.tolist(), strict=True), *zip(x[::-1].tolist(), down[::-1].tolist(), strict=True)],
                colour,
            )
    for at, values, colour, width in (
        (steps, quantiles[2], MIDDLE, 2),
        (np.arange(before), fan.past, PAST, 1),
        (np.arange(before, before + after), fan.truth, LINES[1], 1),
    ):
        if values is not None:
            for points in pieces(*place(at, values)):
                pen.line(points, colour, width=width)
    border, _ = place(before - 0.5, low)
    pen.line([(float(border), top + TOP), (float(border), bottom)], GRID)
    letters.draw(pen, (left, top + 4), letters.shortened(fan.name, right - left), INK)
    # The middle label is left out where it would touch another one.
    first, middle, last = (letters.width(text) for text in fan.labels)
    fits = left + first + 8 < float(border) - middle / 2 and float(border) + middle / 2 + 8 < right - last
    for label, x, anchor in zip(fan.labels, (left, float(border), right), ("la", "ma", "ra"), strict=True):
        if anchor != "ma" or fits:
            letters.draw(pen, (x, bottom + 4), label, INK, anchor)


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers between two."""
    raw = (high - low) / 4
    size = 10.0 ** np.floor(np.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw)
    first = np.ceil(low / step)
    return [float(round(step * (first + i), 10)) for i in range(int(np.floor(high / step) - first) + 1)]
