"""Rules of images and sounds, on files that the tests draw and synthesise."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from afresh.services.collect.record import Record
from afresh.services.collect.rules.pictures import laplacian_variance, look
from afresh.services.collect.rules.sounds import bandwidth, clipped, hearing
from tests.services.collect.rules.judged import judged, kept

RATE = 16_000
RNG = np.random.default_rng(0)


def image(pixels: Any) -> Record:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return Record("image", "s", "w.png", content=buffer.getvalue(), suffix=".png")


def sound(samples: NDArray[np.float64]) -> Record:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32_767).round().astype("<i2").tobytes())
    return Record("audio", "s", "w.wav", content=buffer.getvalue(), suffix=".wav")


def tone(hertz: float, seconds: float = 1.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


COLOURED = RNG.integers(0, 256, (32, 40, 3))
GREY = np.repeat(COLOURED[..., :1], 3, axis=2)
SMOOTH = np.broadcast_to(np.linspace(0, 255, 40)[None, :, None], (32, 40, 3))
IMAGES = [
    ("image_small", 32, COLOURED, COLOURED[:31]),
    ("image_aspect", 5.0, np.tile(COLOURED, (1, 4, 1)), np.tile(COLOURED, (1, 5, 1))),
    ("image_blank", 1.0, SMOOTH, np.full((8, 8, 3), (200, 10, 10))),
    ("image_blurred", 50.0, COLOURED, SMOOTH),
    ("image_grey", None, COLOURED, GREY),
]


@pytest.mark.parametrize(("rule", "value", "good", "bad"), IMAGES, ids=[r for r, *_ in IMAGES])
def test_images_on_both_sides(rule: str, value: Any, good: Any, bad: Any) -> None:
    assert kept(rule, image(good), value) and not kept(rule, image(bad), value)


def test_the_numbers_of_an_image() -> None:
    dot = np.zeros((5, 5), np.float32)
    dot[2, 2] = 1  # the Laplacian of the nine inner pixels: -4 in the middle, 1 at its four sides
    assert laplacian_variance(dot) == pytest.approx((16 + 4) / 9)
    half = np.zeros((6, 10, 3))
    half[:, 5:] = 100, 0, 0
    found = look(image(half).content or b"")
    assert (found.height, found.width, found.contrast, found.colour) == (6, 10, 50, 50)
    noted = judged("image_numbers", image(half))
    assert isinstance(noted, Record) and noted.scores["image_width"] == 10 and noted.scores["image_contrast"] == 50
    assert look(image(np.tile(COLOURED, (40, 40, 1))).content or b"").sharpness > 0  # is reduced
    assert look(image(np.zeros((1, 1))).content or b"").sharpness == 0


SOUNDS = [
    ("sound_silent", -60.0, tone(440), tone(440) / 1_000),
    ("sound_clipped", 0.01, tone(440), 10 * tone(440)),
    ("sound_narrow", 3_500.0, tone(4_000), tone(3_000)),
    ("sound_short", 0.5, tone(440, 0.5), tone(440, 0.49)),
    ("sound_long", 1.0, tone(440, 1.0), tone(440, 1.01)),
]


@pytest.mark.parametrize(("rule", "value", "good", "bad"), SOUNDS, ids=[r for r, *_ in SOUNDS])
def test_sounds_on_both_sides(rule: str, value: Any, good: Any, bad: Any) -> None:
    assert kept(rule, sound(good), value) and not kept(rule, sound(bad), value)


def test_the_numbers_of_a_sound() -> None:
    found = hearing(sound(tone(1_000)).content or b"")
    assert found.seconds == 1 and found.level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert found.clipped == 0 and found.bandwidth == pytest.approx(1_000, abs=40)
    runs = np.array([0, 1, 1, 1, 0, 1, 1, 0, -1, -1, -1, -1], np.float32)[:, None]
    assert clipped(runs) == pytest.approx(7 / 12)
    noise = RNG.normal(size=RATE).astype(np.float32)
    assert bandwidth(noise, RATE) == RATE / 2 and bandwidth(np.zeros(RATE, np.float32), RATE) == 0
    silent = judged("sound_numbers", sound(np.zeros(RATE)))
    assert isinstance(silent, Record) and silent.scores["sound_level"] == -120
