"""Pictures of fields: values as colours, from blue below zero over white to red; a state over one axis as a curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]
# A diverging map of even lightness on both sides (Moreland 2009, Diverging color maps for scientific visualization).
STOPS = np.array(
    [[59, 76, 192], [124, 159, 249], [192, 212, 245], [242, 242, 242], [245, 196, 173], [229, 116, 91], [180, 4, 38]],
    np.float64,
)
LEAST, MOST = 128, 512  # pixels along the longer side
TALL = 120  # pixels of a picture over time
CURVE = (160, 256)  # height and width of the picture of a state over one axis
LINES = ((180, 4, 38), (59, 76, 192), (60, 140, 60), (150, 90, 170))


def colours(values: NDArray[Any], most: float) -> Pixels:
    """Values (...) as (..., 3): white at 0, the ends of the map at -most and most."""
    place = (np.clip(np.nan_to_num(values / (most or 1.0)), -1, 1) + 1) / 2 * (len(STOPS) - 1)
    low = np.minimum(place.astype(int), len(STOPS) - 2)
    share = (place - low)[..., None]
    return np.asarray((1 - share) * STOPS[low] + share * STOPS[low + 1]).round().astype(np.uint8)


def enlarged(pixels: Pixels) -> Pixels:
    """(H, W, 3) with whole repetitions of each point until the longer side is at least LEAST, and thinned out above
    MOST."""
    longest = max(pixels.shape[:2])
    if longest > MOST:
        step = -(-longest // MOST)
        return pixels[::step, ::step]
    times = max(1, -(-LEAST // longest))
    return pixels.repeat(times, 0).repeat(times, 1)


def picture(state: NDArray[Any], most: float) -> Pixels:
    """A state (C, *space): channels beside each other, the middle of a third axis; over one axis as curves."""
    if state.ndim == 2:
        return curves(state, most)
    if state.ndim == 4:
        state = state[:, :, :, state.shape[3] // 2]
    return enlarged(np.concatenate([colours(channel, most) for channel in state], 1))


def curves(state: NDArray[Any], most: float) -> Pixels:
    """A state (C, points) as a curve for each channel, between -most and most."""
    height, width = CURVE
    image = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    pen.line([(0, height // 2), (width, height // 2)], (215, 215, 215))
    x = np.linspace(0, width - 1, state.shape[1])
    for number, channel in enumerate(state):
        y = (height - 1) * (0.5 - 0.48 * np.clip(np.nan_to_num(channel / (most or 1.0)), -1, 1))
        points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        pen.line(points, LINES[number % len(LINES)], width=2)
    return np.asarray(image)


def over_time(states: NDArray[Any], most: float) -> Pixels:
    """States (time, C, points) over one axis as a picture whose rows are states, channels beside each other. Rows are
    repeated until it is at least TALL pixels high."""
    rows = np.concatenate([colours(states[:, c], most) for c in range(states.shape[1])], 1)
    return enlarged(rows.repeat(max(1, -(-TALL // len(rows))), 0))
