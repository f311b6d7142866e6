"""A picture of a posterior: the observations, the truth if it is known, the mean, the deviation and some members."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from afresh.data.image.kind import png_bytes
from afresh.domains.field.observations import Observed
from afresh.domains.field.pictures import Pixels, over_time, picture

SHOWN, STATES = 3, 4  # members, and states of a window
GAP, TITLE = 6, 14  # pixels between pictures, and above them
HEIGHT, WIDTH = 260, 760  # of curves
BAND, MEMBER, MEAN, TRUTH, DOT = (225, 232, 245), (160, 180, 215), (59, 76, 192), (40, 40, 40), (180, 4, 38)


def drawn(observed: Observed, members: NDArray[Any], truth: NDArray[Any] | None) -> bytes:
    """A PNG of members (M, window, C, *space). A state over one axis is shown as curves, a window of such with time
    downwards, and other states as pictures, those of a window below one another."""
    known = np.nan_to_num(on_points(observed).reshape(members.shape[1:]))
    single = members.ndim == 4 and members.shape[1] == 1
    return png_bytes(curves(observed, members, truth) if single else panels(known, members, truth))


def on_points(observed: Observed) -> NDArray[np.float64]:
    """The observations at each point (C, *space): a mean at all points of its block, NaN where nothing is known."""
    out = observed.values
    for axis, factor in enumerate(observed.factors, 1):
        out = out.repeat(factor, axis)
    return out


def panels(known: NDArray[Any], members: NDArray[Any], truth: NDArray[Any] | None) -> Pixels:
    """Pictures beside each other with their titles; `known` (window, C, *space) is 0 where nothing was observed."""
    deviation = members.std(0, ddof=1)
    most = float(np.abs(members).max()) or 1.0
    shown = [("observed", known, most)] + ([] if truth is None else [("truth", truth, most)])
    shown += [("mean", members.mean(0), most), ("deviation", deviation, float(deviation.max()) or 1.0)]
    shown += [(f"member {i}", members[i], most) for i in range(min(SHOWN, len(members)))]
    pictures = [(name, states_of(states, limit)) for name, states, limit in shown]
    height = TITLE + max(p.shape[0] for _, p in pictures)
    image = Image.new("RGB", (sum(p.shape[1] + GAP for _, p in pictures), height), (255, 255, 255))
    pen, left = ImageDraw.Draw(image), 0
    for name, pixels in pictures:
        pen.text((left + 2, 1), name, (0, 0, 0))
        image.paste(Image.fromarray(pixels), (left, TITLE))
        left += pixels.shape[1] + GAP
    return np.asarray(image)


def states_of(states: NDArray[Any], most: float) -> Pixels:
    """States (window, C, *space) as one picture."""
    if states.ndim == 3:
        return over_time(states, most)
    chosen = np.linspace(0, len(states) - 1, min(STATES, len(states))).astype(int)
    return np.concatenate([picture(states[i], most) for i in chosen], 0)


def curves(observed: Observed, members: NDArray[Any], truth: NDArray[Any] | None) -> Pixels:
    """The band of 90% of members (M, 1, C, points), some of them, their mean, the truth, and dots at observations;
    channels below one another."""
    points = members.shape[3]
    parts = []
    for c in range(members.shape[2]):
        rows, seen = members[:, 0, c], on_points(observed)[c]
        values = [rows, *([] if truth is None else [truth[0, c]]), seen[np.isfinite(seen)]]
        low, high = min(float(v.min()) for v in values if v.size), max(float(v.max()) for v in values if v.size)
        image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
        pen = ImageDraw.Draw(image)
        x = np.linspace(8, WIDTH - 9, points)

        def line(row: NDArray[Any], low: float = low, high: float = high, x: NDArray[Any] = x) -> list[Any]:
            y = HEIGHT - 9 - (HEIGHT - 18) * (row - low) / ((high - low) or 1.0)
            return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]

        edges = np.quantile(rows, (0.05, 0.95), axis=0)
        pen.polygon([*line(edges[0]), *reversed(line(edges[1]))], BAND)
        for row in rows[:SHOWN]:
            pen.line(line(row), MEMBER)
        if truth is not None:
            pen.line(line(truth[0, c]), TRUTH, width=2)
        pen.line(line(rows.mean(0)), MEAN, width=2)
        for a, b in (p for p, known in zip(line(np.nan_to_num(seen)), np.isfinite(seen), strict=True) if known):
            pen.ellipse([a - 3, b - 3, a + 3, b + 3], DOT)
        names = "observations: red; mean: blue; 90% of members: light; members: thin"
        pen.text((10, 2), names + ("" if truth is None else "; truth: black"), (0, 0, 0))
        parts.append(np.asarray(image))
    return np.concatenate(parts, 0)
