"""Sounds as the contents of files, and as plain samples, in the formats that programs ask for."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np

from afresh.core import Sound
from afresh.data.audio.views import sound_bytes

Format = Literal["wav", "flac", "mp3", "opus", "pcm"]
MEDIA_TYPES: dict[Format, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": "audio/pcm",
}
PCM_RATE = 24_000  # of plain samples, which say nothing of themselves: what clients of OpenAI's API play
# Samples a second that the formats know; another rate is brought to the next higher one.
RATES: dict[Format, tuple[int, ...]] = {
    "mp3": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "opus": (8_000, 12_000, 16_000, 24_000, 48_000),
    "pcm": (PCM_RATE,),
}
CODECS: dict[Format, tuple[str, str]] = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS")}


def encode_sound(sound: Sound, kind: Format) -> bytes:
    """A sound in a format. "wav" and "flac" have 16 bits a sample at the sound's own rate; "mp3", and "opus" in Ogg,
    are compressed by libsndfile; "pcm" is 16 bits a sample, little-endian, one channel, 24,000 a second, no header."""
    if kind in ("wav", "flac"):
        return sound_bytes(sound, kind)
    rates = RATES[kind]
    sound = resampled(sound, next((rate for rate in rates if rate >= sound.rate), rates[-1]))
    samples = np.clip(sound.samples, -1, 1)
    if kind == "pcm":
        return (samples.mean(1) * 32767).round().astype("<i2").tobytes()
    import soundfile

    buffer = io.BytesIO()
    container, codec = CODECS[kind]
    soundfile.write(buffer, samples, sound.rate, codec, format=container)
    return buffer.getvalue()


def resampled(sound: Sound, rate: int) -> Sound:
    """The sound at another rate."""
    if sound.rate == rate:
        return sound
    import soxr

    samples = soxr.resample(np.ascontiguousarray(sound.samples, np.float32), sound.rate, rate)
    return Sound(samples.reshape(-1, sound.samples.shape[1]), rate)
