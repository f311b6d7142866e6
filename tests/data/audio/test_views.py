"""What is shown of a sound: its wave and spectrum as they are, and a WAV that any player reads."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from afresh.core import Sound
from afresh.data.audio.views import INK, SPECTRUM, WAVE, WIDTH, sound_image, wav_bytes

RATE = 8_000


def tone(hertz: float, seconds: float = 0.5, level: float = 0.5) -> Sound:
    t = np.arange(round(seconds * RATE)) / RATE
    return Sound((level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)[:, None], RATE)


def inked(pixels: np.ndarray) -> np.ndarray:
    """(WIDTH,): rows of the wave that are drawn."""
    return np.asarray((pixels[:WAVE] == INK).all(-1).sum(0))


def brightest(pixels: np.ndarray) -> float:
    """The row of the spectrum with most light, as a frequency in hertz."""
    light = pixels[WAVE:].astype(int).sum((1, 2))
    return float((SPECTRUM - 0.5 - light.argmax()) / SPECTRUM * RATE / 2)


def test_a_wav_contains_16_bit_samples_clipped_to_full_scale() -> None:
    x = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 2)).astype(np.float32)
    read, rate = soundfile.read(io.BytesIO(wav_bytes(Sound(x, 11_025))), dtype="float32", always_2d=True)
    assert rate == 11_025 and read.shape == (500, 2)
    assert np.abs(read - x.clip(-1, 1)).max() <= 1.5 / 32_768


def test_writing_and_reading_again_changes_nothing() -> None:
    once = wav_bytes(tone(440))
    read, rate = soundfile.read(io.BytesIO(once), dtype="float32", always_2d=True)
    assert wav_bytes(Sound(read, rate)) == once


@pytest.mark.parametrize("hertz", [200.0, 1_000.0, 2_500.0, 3_800.0])
def test_low_frequencies_are_at_the_bottom(hertz: float) -> None:
    pixels = sound_image(tone(hertz))
    assert pixels.shape == (WAVE + SPECTRUM, WIDTH, 3) and pixels.dtype == np.uint8
    assert abs(brightest(pixels) - hertz) < 100


def test_the_width_is_the_requested_time() -> None:
    alone, beside = sound_image(tone(440)), sound_image(tone(440), 1.0)
    assert (inked(alone) > 10).all()
    assert (inked(beside)[: WIDTH // 2 - 1] > 10).all() and not inked(beside)[WIDTH // 2 + 1 :].any()
    cut = sound_image(tone(440, 2.0), 0.5)
    assert (inked(cut) > 10).all()


def test_the_wave_is_scaled_to_its_peak() -> None:
    x = np.concatenate([tone(440, 0.25, 0.1).samples, tone(440, 0.25, 0.8).samples])
    rows = inked(sound_image(Sound(x, RATE)))
    quiet, loud = rows[10:70], rows[90:150]
    assert quiet.max() < loud.min() / 4 and loud.max() >= WAVE - 2


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [1, 3, 100, 100_000])
def test_sounds_of_any_length_have_an_image(frames: int, channels: int) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (frames, channels)).astype(np.float32)
    assert sound_image(Sound(x, RATE)).shape == (WAVE + SPECTRUM, WIDTH, 3)


def test_samples_that_are_not_finite_are_drawn_as_silence() -> None:
    silent = sound_image(Sound(np.zeros((800, 1), np.float32), RATE))
    broken = sound_image(Sound(np.full((800, 1), np.nan, np.float32), RATE))
    assert np.array_equal(silent, broken) and not inked(silent).any()
