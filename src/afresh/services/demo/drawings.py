"""Drawings made by formulas: six scenes with random positions, sizes and colours."""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE = 48  # pixels
OVERSAMPLING = 4  # the canvas is this many times larger, and is averaged at the end: smooth edges

Pixels = NDArray[np.uint8]  # (SIDE, SIDE, 3)
Colour = tuple[int, int, int]  # red, green, blue, 0 to 255
Point = tuple[float, float]
WHITE: Colour = (255, 255, 255)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour by hue (a whole number of turns is the same hue), saturation and value, each 0 to 1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b and the rest of a."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


class Canvas:
    """A square of 1 x 1 with the origin at the top left; what is outside is cut off."""

    def __init__(self) -> None:
        self.pixels = SIDE * OVERSAMPLING
        self.image = Image.new("RGB", (self.pixels, self.pixels))
        self.pen = ImageDraw.Draw(self.image)

    def scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.pixels, y * self.pixels) for x, y in points]

    def gradient(self, above: Colour, below: Colour, bottom: float = 1.0) -> None:
        """From the top to `bottom`, from one colour to another."""
        rows = round(bottom * self.pixels)
        for y in range(rows):
            self.pen.line([(0, y), (self.pixels, y)], mix(above, below, y / (rows - 1)))

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self.pen.polygon(self.scaled(points), colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.pen.rectangle(self.scaled([(left, top), (right, bottom)]), colour)

    def ellipse(self, x: float, y: float, across: float, down: float, colour: Colour) -> None:
        """By its centre and its two radii."""
        self.pen.ellipse(self.scaled([(x - across, y - down), (x + across, y + down)]), colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.ellipse(x, y, radius, radius, colour)

    def line(self, start: Point, end: Point, colour: Colour) -> None:
        self.pen.line(self.scaled([start, end]), colour, OVERSAMPLING // 2)

    def hills(self, top: float, height: float, phase: float, waves: float, colour: Colour) -> None:
        """Everything below a sine wave."""
        crest = [(x / 40, top + height * math.sin(phase + waves * x / 40 * math.tau)) for x in range(41)]
        self.polygon([*crest, (1.0, 1.1), (0.0, 1.1)], colour)

    def finish(self) -> Pixels:
        return np.asarray(self.image.resize((SIDE, SIDE), Image.Resampling.BOX))


def sunset(canvas: Canvas, rng: random.Random) -> None:
    warm = rng.uniform(0.98, 1.10)
    canvas.gradient(hsv(rng.uniform(0.62, 0.80), 0.55, 0.55), hsv(warm, 0.55, 1.0), 0.75)
    x, y, radius = rng.uniform(0.3, 0.7), rng.uniform(0.42, 0.60), rng.uniform(0.12, 0.16)
    canvas.disc(x, y, 1.35 * radius, hsv(warm + 0.03, 0.40, 1.0))
    canvas.disc(x, y, radius, hsv(0.13, 0.25, 1.0))
    phase, near = rng.uniform(0, 3), hsv(rng.uniform(0.68, 0.82), 0.5, 0.42)
    canvas.hills(0.70, 0.06, phase, 0.8, near)
    canvas.hills(0.84, 0.05, phase + 2, 0.7, mix(near, (20, 10, 40), 0.55))


def house(canvas: Canvas, rng: random.Random) -> None:
    canvas.gradient(hsv(0.56, rng.uniform(0.3, 0.5), 0.95), hsv(0.55, 0.12, 1.0), 0.85)
    canvas.hills(0.78, 0.03, rng.uniform(0, math.tau), 0.7, hsv(rng.uniform(0.25, 0.36), 0.55, 0.62))
    x, half, eaves, floor = rng.uniform(0.40, 0.60), rng.uniform(0.22, 0.29), rng.uniform(0.44, 0.54), 0.84
    wall = hsv(rng.choice([0.02, 0.10, 0.13, 0.58, 0.95]), rng.uniform(0.12, 0.40), 0.95)
    canvas.box(x + half * 0.35, eaves - 0.24, x + half * 0.60, eaves - 0.02, hsv(0.03, 0.5, 0.5))  # the chimney
    canvas.box(x - half, eaves, x + half, floor, wall)
    roof = [(x - half - 0.06, eaves), (x + half + 0.06, eaves), (x, eaves - 0.27)]
    canvas.polygon(roof, hsv(rng.choice([0.0, 0.03, 0.60, 0.75]), 0.62, 0.62))
    canvas.box(x - 0.055, floor - 0.18, x + 0.055, floor, hsv(0.07, 0.6, 0.40))
    for side in (-1, 1):
        middle = x + side * half * 0.62
        canvas.box(middle - 0.05, eaves + 0.07, middle + 0.05, eaves + 0.17, hsv(0.14, 0.5, 1.0))


def boat(canvas: Canvas, rng: random.Random) -> None:
    canvas.gradient(hsv(0.57, rng.uniform(0.25, 0.55), 0.92), hsv(0.54, 0.08, 1.0), 0.66)
    canvas.box(0, 0.66, 1, 1, hsv(0.58, 0.65, 0.62))
    x, size, deck = rng.uniform(0.38, 0.62), rng.uniform(0.85, 1.10), 0.70
    sail = hsv(rng.random(), rng.choice([0.05, 0.5, 0.6]), 0.97)
    canvas.box(x - 0.012, deck - 0.56 * size, x + 0.012, deck, (90, 60, 40))  # the mast
    main = [(x + 0.025, deck - 0.55 * size), (x + 0.025, deck - 0.07), (x + 0.30 * size, deck - 0.07)]
    jib = [(x - 0.025, deck - 0.46 * size), (x - 0.025, deck - 0.07), (x - 0.22 * size, deck - 0.07)]
    canvas.polygon(main, sail)
    canvas.polygon(jib, mix(sail, WHITE, 0.45))
    rim, keel = deck - 0.03, deck + 0.11
    hull = [(x - 0.30 * size, rim), (x + 0.34 * size, rim), (x + 0.22 * size, keel), (x - 0.20 * size, keel)]
    canvas.polygon(hull, hsv(rng.choice([0.0, 0.03, 0.08, 0.12]), 0.75, 0.55))
    canvas.hills(0.80, 0.012, rng.uniform(0, math.tau), 3, hsv(0.59, 0.7, 0.54))


def flower(canvas: Canvas, rng: random.Random) -> None:
    canvas.gradient(hsv(0.50, 0.16, 1.0), hsv(0.30, 0.25, 0.95))
    canvas.hills(0.90, 0.02, rng.uniform(0, math.tau), 0.8, hsv(0.30, 0.6, 0.55))
    x, y, reach = rng.uniform(0.42, 0.58), rng.uniform(0.34, 0.44), rng.uniform(0.16, 0.21)
    hue = rng.choice([0.0, 0.05, 0.12, 0.55, 0.62, 0.75, 0.83, 0.92]) + rng.uniform(-0.02, 0.02)
    stem = [(x - 0.022, y), (x + 0.022, y), (x + 0.025, 0.96), (x - 0.025, 0.96)]
    canvas.polygon(stem, hsv(0.33, 0.65, 0.5))
    for side in (-1, 1):
        leaf = [(x, 0.80), (x + side * 0.10, 0.64), (x + side * 0.24, 0.62), (x + side * 0.14, 0.75)]
        canvas.polygon(leaf, hsv(0.33, 0.6, 0.58))
    petal = hsv(hue, rng.uniform(0.45, 0.75), 0.96)
    for turn in range(6):
        angle = math.tau * turn / 6 - math.pi / 2
        canvas.disc(x + reach * math.cos(angle), y + reach * math.sin(angle), 0.58 * reach, petal)
    canvas.disc(x, y, 0.60 * reach, hsv(0.06, 0.8, 0.55) if 0.08 < hue < 0.20 else hsv(0.13, 0.75, 1.0))


def fish(canvas: Canvas, rng: random.Random) -> None:
    canvas.gradient(hsv(0.52, 0.45, 0.90), hsv(0.60, 0.75, 0.50))
    canvas.hills(0.92, 0.03, rng.uniform(0, math.tau), 1.0, hsv(0.12, 0.35, 0.85))
    x, y, length = rng.uniform(0.42, 0.58), rng.uniform(0.40, 0.58), rng.uniform(0.24, 0.30)
    height = length * rng.uniform(0.58, 0.78)
    hue = rng.choice([0.03, 0.07, 0.12, 0.83, 0.95])
    fin = hsv(hue - 0.04, 0.8, 0.80)
    tail = [(x - a * length, y + b * height) for a, b in ((0.75, 0), (1.5, -0.85), (1.25, 0), (1.5, 0.85))]
    back = [(x - 0.3 * length, y - 0.7 * height), (x + 0.1 * length, y - 1.45 * height)]
    canvas.polygon(tail, fin)
    canvas.polygon([*back, (x + 0.45 * length, y - 0.6 * height)], fin)
    canvas.ellipse(x, y, length, height, hsv(hue, 0.75, 1.0))
    stripe, edge = x - 0.05 * length, 0.97 * height
    corners = ((-0.03, -1), (0.03, -1), (0.045, 0), (0.03, 1), (-0.03, 1), (-0.045, 0))
    canvas.polygon([(stripe + dx, y + side * edge) for dx, side in corners], hsv(hue, 0.18, 1.0))
    canvas.disc(x + 0.58 * length, y - 0.2 * height, 0.050, WHITE)
    canvas.disc(x + 0.62 * length, y - 0.2 * height, 0.026, (20, 20, 40))
    for bubble in range(3):
        beside = min(0.95, x + length + 0.09)
        canvas.disc(beside, y - 0.12 * (bubble + 1), 0.022 + 0.005 * bubble, hsv(0.52, 0.25, 1.0))


def balloon(canvas: Canvas, rng: random.Random) -> None:
    canvas.gradient(hsv(0.58, rng.uniform(0.35, 0.60), 0.88), hsv(0.54, 0.10, 1.0))
    canvas.hills(0.90, 0.03, rng.uniform(0, math.tau), 0.9, hsv(0.33, 0.45, 0.62))
    x, y, radius = rng.uniform(0.40, 0.60), rng.uniform(0.33, 0.40), rng.uniform(0.22, 0.26)
    hue = rng.random()
    outer, inner = hsv(hue, 0.7, 0.95), hsv(hue + rng.choice([0.12, 0.45, 0.50]), 0.35, 1.0)
    for side in (-1, 1):
        canvas.line((x + side * 0.55 * radius, y + 0.7 * radius), (x + side * 0.05, y + 1.75 * radius), (90, 70, 50))
    for share, colour in ((1.0, outer), (0.66, inner), (0.30, outer)):
        canvas.ellipse(x, y, share * radius, radius, colour)
        top, bottom = share * 0.86 * radius, share * 0.28 * radius
        upper, lower = y + 0.5 * radius, y + 1.35 * radius
        canvas.polygon([(x - top, upper), (x + top, upper), (x + bottom, lower), (x - bottom, lower)], colour)
    canvas.box(x - 0.055, y + 1.7 * radius, x + 0.055, y + 1.7 * radius + 0.09, (140, 95, 55))


SCENES: dict[str, Callable[[Canvas, random.Random], None]] = {
    scene.__name__: scene for scene in (balloon, boat, fish, flower, house, sunset)
}


def draw(label: str, seed: int, index: int) -> Pixels:
    """One drawing of a scene; the same arguments give the same pixels."""
    canvas = Canvas()
    SCENES[label](canvas, random.Random(f"{seed}/{label}/{index}"))
    return canvas.finish()


def write_drawings(folder: Path, each: int, seed: int) -> None:
    """`each` drawings of every scene as PNG files in folders named after the scenes."""
    for label in SCENES:
        (folder / label).mkdir(parents=True)
        for index in range(each):
            Image.fromarray(draw(label, seed, index)).save(folder / label / f"{index:03d}.png")
