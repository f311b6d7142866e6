"""Pictures of fields: values as colours, from blue over white to red, or as curves over one axis; with the scale, the
name and the unit of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from afresh.data.image.lettering import Lettering

Pixels = NDArray[np.uint8]
# A diverging map of even lightness on both sides (Moreland 2009, Diverging color maps for scientific visualization).
STOPS = np.array(
    [[59, 76, 192], [124, 159, 249], [192, 212, 245], [242, 242, 242], [245, 196, 173], [229, 116, 91], [180, 4, 38]],
    np.float64,
)
LEAST, MOST = 128, 512  # pixels along the longer side
TALL, WIDE = 120, 80  # pixels of a picture over time, at least
CURVE = (160, 256)  # height and width of the picture of a state over one axis
LINES = ((180, 4, 38), (59, 76, 192), (60, 140, 60), (150, 90, 170))
SIZE, GAP, LINE, BAR = 12, 6, 17, 14  # pixels of letters, between pictures, of a line of text, and of a bar of colours
INK, FRAME, PAPER = (30, 30, 30), (215, 215, 215), 255


@dataclass(frozen=True)
class ColourScale:
    """The values at the two ends of the colours of a channel."""

    low: float
    high: float

    @classmethod
    def of(cls, *values: NDArray[Any]) -> ColourScale:
        """That of all finite values. The middle is 0 where they have both signs."""
        ends = cls.ends(*values)
        most = max(-ends.low, ends.high)
        return cls(-most, most) if ends.low < 0 < ends.high else ends

    @classmethod
    def ends(cls, *values: NDArray[Any]) -> ColourScale:
        """From the least finite value to the greatest one."""
        known = [v[np.isfinite(v)] for v in values]
        low, high = (float(f([f(v) for v in known if v.size] or [0.0])) for f in (np.min, np.max))
        return cls(low, high) if high > low else cls(low - 1, low + 1)

    def place(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values from 0 at the low end to 1 at the high one; NaN stays."""
        return np.clip((np.asarray(values, np.float64) - self.low) / (self.high - self.low), 0, 1)


def colours(values: NDArray[Any], scale: ColourScale) -> Pixels:
    """Values (...) as (..., 3): blue at the low end, white in the middle, red at the high end; unknown ones are
    white paper."""
    place = scale.place(values) * (len(STOPS) - 1)
    known = np.isfinite(place)
    place = np.nan_to_num(place)
    low = np.minimum(place.astype(int), len(STOPS) - 2)
    share = (place - low)[..., None]
    found = ((1 - share) * STOPS[low] + share * STOPS[low + 1]).round()
    return np.asarray(np.where(known[..., None], found, PAPER)).astype(np.uint8)


def enlarged(pixels: Pixels) -> Pixels:
    """(H, W, 3) with whole repetitions of each point until the longer side is at least LEAST, and thinned out above
    MOST."""
    longest = max(pixels.shape[:2])
    if longest > MOST:
        step = -(-longest // MOST)
        return pixels[::step, ::step]
    times = max(1, -(-LEAST // longest))
    return pixels.repeat(times, 0).repeat(times, 1)


def previews(states: Sequence[NDArray[Any]]) -> list[Pixels]:
    """Pictures of states (C, *space) with one scale for each channel: channels beside each other, the middle of a third
    axis; over one axis as curves in one picture."""
    counts = {len(s) for s in states}
    found = [ColourScale.of(*(s[c] for s in states if c < len(s))) for c in range(max(counts, default=0))]
    return [
        curves(s, found)
        if s.ndim == 2
        else np.concatenate([cell(c, scale) for c, scale in zip(s, found, strict=False)], 1)
        for s in states
    ]


def cell(channel: NDArray[Any], scale: ColourScale) -> Pixels:
    """One channel (*space) of a state."""
    if channel.ndim == 1:
        return curves(channel[None], [scale])
    return enlarged(colours(channel if channel.ndim == 2 else channel[:, :, channel.shape[2] // 2], scale))


def curves(state: NDArray[Any], scales: Sequence[ColourScale]) -> Pixels:
    """A state (C, points) as a curve for each channel, between the ends of its scale."""
    height, width = CURVE
    image = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    x = np.linspace(0, width - 1, state.shape[1])
    for number, (channel, scale) in enumerate(zip(state, scales, strict=False)):
        if scale.low < 0 < scale.high:
            zero = (height - 1) * (1 - float(scale.place(np.zeros(1))[0]))
            pen.line([(0, zero), (width, zero)], FRAME)
        y = (height - 1) * (0.98 - 0.96 * np.nan_to_num(scale.place(channel)))
        points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        pen.line(points, LINES[number % len(LINES)], width=2)
    return np.asarray(image)


def over_time(states: NDArray[Any], scale: ColourScale) -> Pixels:
    """States (time, points) of one channel over one axis as a picture whose rows are states, with both repeated until
    it is at least TALL pixels high and WIDE pixels wide."""
    rows = colours(states, scale)
    return enlarged(rows.repeat(-(-TALL // len(rows)), 0).repeat(-(-WIDE // rows.shape[1]), 1))


@dataclass(frozen=True)
class ChannelRows:
    """Pictures of one channel with one scale, in rows. `columns` and `labels`: the names of columns and rows."""

    title: str
    scale: ColourScale
    rows: Sequence[Sequence[Pixels]]
    columns: Sequence[str] = ()
    labels: Sequence[str] = ()
    curves: bool = False

    @property
    def ends(self) -> list[str]:
        """What the scale says at its high end, in the middle and at its low end."""
        low, high = self.scale.low, self.scale.high
        return [f"{v + 0:.3g}" for v in (high, (low + high) / 2, low)]


def sheet(blocks: Sequence[ChannelRows]) -> Pixels:
    """Blocks below one another, each with its name, the names of its rows and columns, and its scale at the right."""
    letters = Lettering([text for b in blocks for text in (b.title, *b.columns, *b.labels, *b.ends)], SIZE)
    left = GAP + round(max((letters.width(label) + GAP for b in blocks for label in b.labels), default=0))
    places = [[left + sum(p.shape[1] + GAP for p in b.rows[0][:k]) for k in range(len(b.rows[0]) + 1)] for b in blocks]
    bars = [place.pop() for place in places]
    across = max(bars) + BAR + GAP + round(max(letters.width(end) for b in blocks for end in b.ends))
    across = max([across, *(left + round(letters.width(b.title)) for b in blocks)]) + GAP
    heads = [LINE * (1 + bool(b.columns)) for b in blocks]
    rows = [[max(p.shape[0] for p in row) + GAP for row in b.rows] for b in blocks]
    image = Image.new("RGB", (across, sum(heads) + sum(map(sum, rows)) + GAP * len(blocks)), (PAPER,) * 3)
    pen, top = ImageDraw.Draw(image), 0
    for block, lefts, bar, head, heights in zip(blocks, places, bars, heads, rows, strict=True):
        letters.draw(pen, (left, top + 2), block.title, INK)
        for name, x, pixels in zip(block.columns, lefts, block.rows[0], strict=False):
            letters.draw(pen, (x, top + LINE + 2), letters.shortened(name, pixels.shape[1]), INK)
        begin = y = top + head
        for number, (row, height) in enumerate(zip(block.rows, heights, strict=True)):
            if block.labels:
                letters.draw(pen, (GAP, y + 2), block.labels[number], INK)
            for pixels, x in zip(row, lefts, strict=True):
                pen.rectangle((x - 1, y - 1, x + pixels.shape[1], y + pixels.shape[0]), outline=FRAME)
                image.paste(Image.fromarray(pixels), (x, y))
            y += height
        end = y - GAP
        if not block.curves:
            values = np.linspace(block.scale.high, block.scale.low, end - begin)[:, None]
            image.paste(Image.fromarray(colours(values, block.scale).repeat(BAR, 1)), (bar, begin))
        at = bar + (0 if block.curves else BAR + GAP // 2)
        for text, place, anchor in zip(block.ends, (begin, (begin + end) / 2, end), ("la", "lm", "ld"), strict=True):
            letters.draw(pen, (at, place), text, INK, anchor)
        top = y + GAP
    return np.asarray(image)
