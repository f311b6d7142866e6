"""A picture of a posterior: the observations, the truth if it is known, the mean, the deviation and some members."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from afresh.data.image.kind import png_bytes
from afresh.data.image.lettering import Lettering
from afresh.domains.field.encoder import FieldEncoder
from afresh.domains.field.observations import Observed
from afresh.domains.field.pictures import SIZE, ChannelRows, ColourScale, Pixels, cell, over_time, sheet
from afresh.engine.evaluation.estimate import held_between

SHOWN, STATES = 3, 4  # members, and states of a window
LEFT, RIGHT, TOP, LINE = 70, 10, 24, 20  # pixels around curves
HEIGHT, WIDTH = 260, 760  # of curves
BAND, MEMBER, MEAN, TRUTH, DOT, INK = (
    (225, 232, 245),
    (160, 180, 215),
    (59, 76, 192),
    (40, 40, 40),
    (180, 4, 38),
    (0,) * 3,
)


def drawn(observed: Observed, members: NDArray[Any], truth: NDArray[Any] | None) -> bytes:
    """A PNG of members (M, window, C, *space). A state over one axis is shown as curves, a window of such with time
    downwards, and other states as pictures, those of a window below one another."""
    known = on_points(observed).reshape(members.shape[1:])
    single = members.ndim == 4 and members.shape[1] == 1
    return png_bytes(curves(observed, members, truth) if single else panels(observed.encoder, known, members, truth))


def on_points(observed: Observed) -> NDArray[np.float64]:
    """The observations at each point (C, *space): a mean at all points of its block, NaN where nothing is known."""
    out = observed.values
    for axis, factor in enumerate(observed.factors, 1):
        out = out.repeat(factor, axis)
    return out


def panels(encoder: FieldEncoder, known: NDArray[Any], members: NDArray[Any], truth: NDArray[Any] | None) -> Pixels:
    """Two blocks for each channel: the states with one scale, and the deviation of the members with its own; `known`
    (window, C, *space) is NaN where nothing was observed. Rows are states of the window."""
    deviation, window = members.std(0, ddof=1), members.shape[1]
    shown = [("observed", known)] + ([] if truth is None else [("truth", truth)]) + [("mean", members.mean(0))]
    shown += [(f"member {i}", members[i]) for i in range(min(SHOWN, len(members)))]
    at = [0] if members.ndim == 4 else np.linspace(0, window - 1, min(STATES, window)).astype(int).tolist()
    times = [] if members.ndim == 4 or window == 1 else [f"time {k * encoder.step:.4g}" for k in at]
    blocks = []
    for c, name in enumerate(encoder.titles):
        title = f"{name}, from time 0 at the top to {(window - 1) * encoder.step:.4g}" if members.ndim == 4 else name
        above_zero = ColourScale(0.0, float(deviation[:, c].max()) or 1.0)
        for what, scale, states in (
            (title, ColourScale.of(*(s[:, c] for _, s in shown)), shown),
            (f"deviation of the members, {title}", above_zero, [("", deviation)]),
        ):
            draw = over_time if members.ndim == 4 else cell
            rows = [[draw(s[:, c] if members.ndim == 4 else s[k, c], scale) for _, s in states] for k in at]
            blocks.append(ChannelRows(what, scale, rows, [name for name, _ in states if name], times))
    return sheet(blocks)


def curves(observed: Observed, members: NDArray[Any], truth: NDArray[Any] | None) -> Pixels:
    """The band between the quantiles .05 and .95 of members (M, 1, C, points), some of them, their mean, the truth, and
    dots at observations; channels below one another, with their names, units and values."""
    points, titles = members.shape[3], observed.encoder.titles
    held = held_between(len(members), 0.9)
    names = f"observations: red; mean: blue; members: thin; their 5% to 95%, about {held:.0%} of truths: light"
    names += "" if truth is None else "; truth: black"
    letters = Lettering(titles, SIZE)
    image = Image.new("RGB", (WIDTH, LINE + HEIGHT * len(titles)), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    letters.draw(pen, (LEFT, 4), names, INK)
    x = np.linspace(LEFT, WIDTH - RIGHT, points)
    for c, title in enumerate(titles):
        rows, seen, top = members[:, 0, c], on_points(observed)[c], LINE + HEIGHT * c
        scale = ColourScale.ends(rows, seen, *([] if truth is None else [truth[0, c]]))

        def line(row: NDArray[Any], scale: ColourScale = scale, top: int = top) -> list[Any]:
            y = top + HEIGHT - 9 - (HEIGHT - 9 - TOP) * scale.place(row)
            return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]

        letters.draw(pen, (LEFT, top + 4), title, INK)
        for value, place in zip((scale.high, scale.low), (top + TOP, top + HEIGHT - 9), strict=True):
            letters.draw(pen, (LEFT - 6, place), f"{value:.3g}", INK, "rm")
        low, high = np.quantile(rows, (0.05, 0.95), axis=0)
        pen.polygon([*line(low), *reversed(line(high))], BAND)
        for row in rows[:SHOWN]:
            pen.line(line(row), MEMBER)
        if truth is not None:
            pen.line(line(truth[0, c]), TRUTH, width=2)
        pen.line(line(rows.mean(0)), MEAN, width=2)
        for a, b in (p for p, known in zip(line(np.nan_to_num(seen)), np.isfinite(seen), strict=True) if known):
            pen.ellipse([a - 3, b - 3, a + 3, b + 3], DOT)
    return np.asarray(image)
