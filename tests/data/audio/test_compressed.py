"""Sounds in the formats of files: as long as before, and the same frequencies in them."""

from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
import soundfile

from afresh.core import Sound
from afresh.data.audio.compressed import MEDIA_TYPES, PCM_RATE, Format, encode_sound

KINDS: tuple[Format, ...] = get_args(Format)


def tone(rate: int, channels: int, hertz: float = 400.0) -> Sound:
    t = np.arange(rate) / rate
    wave = (0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)
    return Sound(np.repeat(wave[:, None], channels, 1), rate)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [4_000, 10_000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("kind", KINDS)
def test_every_rate_in_every_format(kind: Format, rate: int, channels: int) -> None:
    content = encode_sound(tone(rate, channels), kind)
    if kind == "pcm":
        samples, found = np.frombuffer(content, "<i2").astype(float) / 32768, PCM_RATE
    else:
        read, found = soundfile.read(io.BytesIO(content), always_2d=True)
        assert read.shape[1] == channels
        samples = read[:, 0]
    assert abs(len(samples) / found - 1) < 0.1
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(spectrum.argmax() * found / len(samples) - 400) < 5
    assert abs(np.sqrt(np.square(samples).mean()) / (0.5 / np.sqrt(2)) - 1) < 0.1


def test_every_format_has_a_name_on_the_web() -> None:
    assert set(MEDIA_TYPES) == set(KINDS)


def test_what_is_too_loud_is_clipped() -> None:
    loud = Sound(np.full((100, 1), 3.0, np.float32), PCM_RATE)
    assert (np.frombuffer(encode_sound(loud, "pcm"), "<i2") == 32767).all()
