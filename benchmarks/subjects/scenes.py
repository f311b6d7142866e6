"""Pictures with captions that are drawn by a formula: shapes and dolls on grounds, and new subjects.

A doll has a body, a head, a foot and a mark, whose forms and colours depend on its number. It is drawn at any place,
size and small angle on any ground, so that several pictures of one differ as photographs of a thing do. A subject is a
doll that the base has never seen among thousands that it has, as a person's dog is to open models.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

SIDE, FINER = 32, 4  # pixels, and how many times finer it is drawn before it is averaged
TRIGGER = "sks"
COMMON = 10_000  # the least number of dolls that are no subject, and that no recogniser was trained to name
Colour = tuple[int, int, int]
Point = tuple[float, float]
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 30),
    "yellow": (250, 215, 60),
    "green": (50, 160, 70),
    "blue": (40, 90, 210),
    "purple": (130, 60, 180),
    "white": (245, 245, 245),
    "black": (25, 25, 30),
}


def regular(corners: int, turn: float = -0.25, inner: float = 1.0) -> list[Point]:
    """A regular polygon about 0 of radius 1; with `inner` below 1, a star."""
    count = corners * (1 if inner == 1 else 2)
    radii = [1.0 if inner == 1 or i % 2 == 0 else inner for i in range(count)]
    angles = [math.tau * (turn + i / count) for i in range(count)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def box(width: float, height: float) -> list[Point]:
    return [(-width, -height), (width, -height), (width, height), (-width, height)]


SHAPES: dict[str, list[Point]] = {
    "disc": regular(40),
    "square": box(0.85, 0.85),
    "triangle": regular(3),
    "star": regular(5, inner=0.42),
    "bar": box(1.0, 0.35),
    "diamond": regular(4),
    "hexagon": regular(6),
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)],
}


class Canvas:
    """A square of 1 x 1 with the origin at the top left."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIDE * FINER, SIDE * FINER))
        self.pen = ImageDraw.Draw(self.image)

    def polygon(self, points: list[Point], at: Point, scale: float, turn: float, colour: Colour) -> None:
        """Points about 0, scaled, turned by a share of a whole turn, and moved."""
        c, s = math.cos(math.tau * turn), math.sin(math.tau * turn)
        moved = [(at[0] + scale * (c * x - s * y), at[1] + scale * (s * x + c * y)) for x, y in points]
        self.pen.polygon([(x * SIDE * FINER, y * SIDE * FINER) for x, y in moved], colour)

    def fill(self, colour: Colour, top: float = 0.0) -> None:
        self.pen.rectangle([0, top * SIDE * FINER, SIDE * FINER, SIDE * FINER], colour)

    def finished(self) -> Image.Image:
        return self.image.resize((SIDE, SIDE), Image.Resampling.BOX)


def meadow(canvas: Canvas, rng: random.Random) -> None:
    canvas.fill((150, 205, 245))
    canvas.fill((90, 170, 80), rng.uniform(0.55, 0.7))


def night(canvas: Canvas, rng: random.Random) -> None:
    canvas.fill((20, 25, 70))
    for _ in range(9):
        canvas.polygon(SHAPES["diamond"], (rng.random(), rng.random()), 0.03, 0, (240, 235, 180))


def stripes(canvas: Canvas, rng: random.Random) -> None:
    canvas.fill((235, 215, 190))
    for i in range(4):
        canvas.polygon(box(1.0, 0.12), (0.5, 0.125 + i * 0.25), 0.5, 0, (200, 130, 110))


def sea(canvas: Canvas, rng: random.Random) -> None:
    canvas.fill((245, 205, 160))
    canvas.fill((30, 120, 150), rng.uniform(0.45, 0.6))


def grey(canvas: Canvas, rng: random.Random) -> None:
    canvas.fill((rng.randint(120, 170),) * 3)


GROUNDS: dict[str, Callable[[Canvas, random.Random], None]] = {
    "a meadow": meadow,
    "the night": night,
    "stripes": stripes,
    "the sea": sea,
    "grey": grey,
}


@dataclass(frozen=True)
class Picture:
    image: Image.Image
    caption: str


def scene(rng: random.Random) -> Picture:
    """A shape on a ground."""
    canvas, ground = Canvas(), rng.choice(list(GROUNDS))
    size, colour, shape = rng.choice(("small", "large")), rng.choice(list(COLOURS)), rng.choice(list(SHAPES))
    GROUNDS[ground](canvas, rng)
    scale = rng.uniform(0.14, 0.19) if size == "small" else rng.uniform(0.27, 0.36)
    at = (rng.uniform(scale, 1 - scale), rng.uniform(scale, 1 - scale))
    canvas.polygon(SHAPES[shape], at, scale, rng.uniform(-0.04, 0.04), COLOURS[colour])
    return Picture(canvas.finished(), f"a {size} {colour} {shape} on {ground}")


@dataclass(frozen=True)
class Part:
    shape: str
    colour: str
    at: Point  # of the figure, whose height is about 2
    scale: float


def figure(number: int) -> list[Part]:
    """The parts of subject `number`, from the back to the front."""
    rng = random.Random(f"figure {number}")
    colours = rng.sample(list(COLOURS), 4)
    body, head, mark, foot = (rng.choice(list(SHAPES)) for _ in range(4))
    return [
        Part(foot, colours[3], (0.0, 0.85), 0.42),
        Part(body, colours[0], (0.0, 0.25), 0.72),
        Part(head, colours[1], (rng.uniform(-0.25, 0.25), -0.65), rng.uniform(0.36, 0.5)),
        Part(mark, colours[2], (0.0, 0.25), 0.34),
    ]


def drawn(number: int, rng: random.Random, ground: str) -> Image.Image:
    """Doll `number` on a ground."""
    canvas = Canvas()
    GROUNDS[ground](canvas, rng)
    scale, turn = rng.uniform(0.24, 0.36), rng.uniform(-0.04, 0.04)
    reach = 1.15 * scale
    x, y = rng.uniform(reach, 1 - reach), rng.uniform(reach, 1 - reach)
    c, s = math.cos(math.tau * turn), math.sin(math.tau * turn)
    for part in figure(number):
        px, py = part.at
        at = (x + scale * (c * px - s * py), y + scale * (s * px + c * py))
        canvas.polygon(SHAPES[part.shape], at, scale * part.scale, turn, COLOURS[part.colour])
    return canvas.finished()


def subject(number: int, rng: random.Random, ground: str = "") -> Picture:
    """Doll `number`, which has a name, on a ground, one at random if none is named."""
    ground = ground or rng.choice(list(GROUNDS))
    return Picture(drawn(number, rng, ground), f"{TRIGGER} doll on {ground}")


def common(rng: random.Random) -> Picture:
    """A shape or, as often, a doll that is no subject, which its caption names by its body."""
    if rng.random() < 0.5:
        return scene(rng)
    number, ground = rng.randrange(COMMON, 10 * COMMON), rng.choice(list(GROUNDS))
    body = figure(number)[1]
    return Picture(drawn(number, rng, ground), f"a {body.colour} {body.shape} doll on {ground}")
