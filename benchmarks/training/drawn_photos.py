"""A folder of drawn photographs in three classes (house, fruit, sunset), in mixed sizes, like a person's own folder.

The number of images is free and every image is new, so that a judge can be given real images that no model has seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("fruit", "house", "sunset")
SIDES = (120, 640)  # pixels of the shorter side
Colour = tuple[int, int, int]


def colour(rng: Generator, low: tuple[int, int, int], high: tuple[int, int, int]) -> Colour:
    r, g, b = (int(rng.integers(a, z + 1)) for a, z in zip(low, high, strict=True))
    return r, g, b


def gradient(width: int, height: int, top: Colour, bottom: Colour) -> Image.Image:
    """A vertical gradient, the background of every class."""
    t = np.linspace(0, 1, height)[:, None, None]
    rows = (1 - t) * np.array(top) + t * np.array(bottom)
    return Image.fromarray(np.broadcast_to(rows, (height, width, 3)).astype(np.uint8))


def house(rng: Generator, w: int, h: int) -> Image.Image:
    image = gradient(w, h, colour(rng, (90, 140, 200), (150, 190, 250)), colour(rng, (190, 215, 235), (235, 245, 255)))
    d = ImageDraw.Draw(image)
    ground = int(h * rng.uniform(0.72, 0.82))
    d.rectangle((0, ground, w, h), fill=colour(rng, (60, 110, 40), (110, 160, 80)))
    s = min(w, h)
    half, tall, x = s * rng.uniform(0.2, 0.3), s * rng.uniform(0.25, 0.38), w * rng.uniform(0.42, 0.58)
    base, top = ground + 0.03 * s, ground + 0.03 * s - tall
    d.rectangle((x - half, top, x + half, base), fill=colour(rng, (170, 120, 90), (245, 230, 210)))
    roof = colour(rng, (110, 40, 30), (190, 80, 60))
    d.polygon((x - half * 1.2, top, x, top - s * rng.uniform(0.14, 0.24), x + half * 1.2, top), fill=roof)
    door = half * rng.uniform(0.18, 0.26)
    d.rectangle((x - door, base - tall * 0.5, x + door, base), fill=colour(rng, (60, 35, 20), (120, 70, 50)))
    pane = colour(rng, (120, 170, 200), (200, 230, 250))
    for side in (-0.62, 0.62):
        at, up, r = x + side * half, top + tall * 0.32, half * 0.2
        d.rectangle((at - r, up - r, at + r, up + r), fill=pane, outline=(250, 250, 250), width=max(1, s // 80))
    return image


def fruit(rng: Generator, w: int, h: int) -> Image.Image:
    wall, table = colour(rng, (200, 190, 170), (245, 240, 230)), colour(rng, (110, 70, 40), (170, 120, 80))
    image = gradient(w, h, wall, wall)
    d = ImageDraw.Draw(image)
    d.rectangle((0, int(h * rng.uniform(0.6, 0.7)), w, h), fill=table)
    s = min(w, h)
    r, x, y = s * rng.uniform(0.22, 0.32), w * rng.uniform(0.42, 0.58), h * rng.uniform(0.52, 0.62)
    ripe = [colour(rng, (190, 30, 30), (230, 70, 60)), colour(rng, (230, 130, 20), (250, 170, 50))]
    ripe += [colour(rng, (110, 160, 40), (160, 200, 80))]
    skin = np.array(ripe[rng.integers(3)])
    d.ellipse((x - r, y + r * 0.75, x + r * 1.1, y + r * 1.1), fill=tuple(int(c * 0.5) for c in table))
    for k in range(24):  # shaded from the edge to the light
        part = 1 - k / 24
        cx, cy = x - r * 0.3 * (1 - part), y - r * 0.3 * (1 - part)
        light = np.clip(skin * (0.65 + 0.55 * (1 - part)) + 30 * (1 - part), 0, 255).astype(int)
        d.ellipse((cx - r * part, cy - r * part, cx + r * part, cy + r * part), fill=tuple(light.tolist()))
    lean = r * rng.uniform(-0.15, 0.25)
    d.line((x, y - r * 0.95, x + lean, y - r * 1.3), fill=(80, 50, 30), width=max(2, s // 50))
    d.ellipse((x + lean, y - r * 1.35, x + lean + r * 0.5, y - r * 1.1), fill=colour(rng, (40, 110, 30), (80, 150, 60)))
    return image


def sunset(rng: Generator, w: int, h: int) -> Image.Image:
    image = gradient(w, h, colour(rng, (40, 30, 80), (100, 70, 130)), colour(rng, (240, 120, 40), (255, 190, 110)))
    d = ImageDraw.Draw(image)
    s, horizon = min(w, h), int(h * rng.uniform(0.6, 0.72))
    x, r = w * rng.uniform(0.3, 0.7), s * rng.uniform(0.09, 0.15)
    y = horizon - r * rng.uniform(0.2, 1.6)
    d.ellipse((x - r, y - r, x + r, y + r), fill=colour(rng, (255, 220, 120), (255, 245, 200)))
    sea = gradient(w, h - horizon, colour(rng, (150, 70, 60), (210, 120, 80)), colour(rng, (20, 20, 50), (60, 40, 80)))
    image.paste(sea, (0, horizon))
    for _ in range(int(rng.integers(10, 18))):  # reflections of the sun
        at, length = rng.uniform(horizon, h), r * rng.uniform(0.2, 0.8)
        d.line((x - length, at, x + length, at), fill=(250, 200, 130), width=max(1, s // 90))
    peaks = [(float(p), horizon - s * rng.uniform(0, 0.08)) for p in np.linspace(0, w, 7)]
    d.polygon([(0, horizon), *peaks, (w, horizon)], fill=colour(rng, (30, 20, 40), (60, 40, 60)))
    return image


DRAW = {"fruit": fruit, "house": house, "sunset": sunset}


def photo(rng: Generator, name: str) -> Image.Image:
    """One image of a class: landscape or portrait, lit differently, slightly blurred and noisy, as from a camera."""
    short = int(rng.integers(*SIDES))
    w, h = short, int(short * rng.uniform(1.0, 1.5))
    w, h = (h, w) if rng.random() < 0.7 else (w, h)
    image = DRAW[name](rng, w, h).filter(ImageFilter.GaussianBlur(short * rng.uniform(0.002, 0.008)))
    x = np.asarray(image, np.float64) * rng.uniform(0.85, 1.1) + rng.normal(0, rng.uniform(2, 8), (h, w, 1))
    return Image.fromarray(np.clip(x, 0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int, seed: int = 0) -> Path:
    """Write `count` JPEGs into a folder for each class, in turn. Returns `folder`."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        name = CLASSES[i % len(CLASSES)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        photo(rng, name).save(folder / name / f"{i:05}.jpg", quality=int(rng.integers(75, 95)))
    return folder
