"""Representations of a sound for people: an image of its wave and its spectrum, and files that can be played."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from afresh.core import Sound

Pixels = NDArray[np.uint8]  # (H, W, 3)
WIDTH, WAVE, SPECTRUM = 160, 32, 80  # width, and heights of the two parts, in pixels
QUIET = 1e-3  # peak below which a wave is not scaled up to the full height
RANGE = 70.0  # dB below the loudest level that are visible
PAPER, INK, LINE = (255, 255, 255), (36, 74, 122), (205, 213, 224)


def wav_bytes(sound: Sound) -> bytes:
    """The content of a 16-bit WAV file. Samples outside [-1, 1] are clipped."""
    return sound_bytes(sound, "wav")


def sound_bytes(sound: Sound, kind: str) -> bytes:
    """The content of a 16-bit "wav" or "flac" file. Both contain the same samples."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(sound.samples, -1, 1), sound.rate, "PCM_16", format="WAV")
    if kind == "wav":
        return buffer.getvalue()
    # Written from the WAV's integers, because libsndfile rounds floats differently for FLAC.
    samples, rate = soundfile.read(io.BytesIO(buffer.getvalue()), dtype="int16")
    flac = io.BytesIO()
    soundfile.write(flac, samples, rate, "PCM_16", format=kind.upper())
    return flac.getvalue()


def sound_image(sound: Sound, seconds: float | None = None) -> Pixels:
    """An image (WAVE + SPECTRUM, WIDTH, 3): the wave, scaled to its peak, above the power spectrum, low frequencies at
    the bottom.

    `seconds`: the time that the width represents, to make several images comparable; None: the length of the sound.
    """
    frames = max(1, round((seconds or sound.seconds) * sound.rate))
    mono = np.zeros(frames, np.float32)
    samples = np.nan_to_num(sound.samples.mean(1))[:frames]
    mono[: len(samples)] = samples
    return np.concatenate([_wave(mono), _spectrum(mono)])


def _wave(mono: NDArray[np.float32]) -> Pixels:
    pixels = np.full((WAVE, WIDTH, 3), PAPER, np.uint8)
    pixels[WAVE // 2] = LINE
    middle = (WAVE - 1) / 2
    mono = mono / max(float(np.abs(mono).max()), QUIET)
    edges = np.linspace(0, len(mono), WIDTH + 1).astype(int)
    for column, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        part = np.clip(mono[a : max(b, a + 1)], -1, 1)
        top, bottom = (round(middle * (1 - v)) for v in (float(part.max()), float(part.min())))
        if top != bottom:
            pixels[top : bottom + 1, column] = INK
    return pixels


def _spectrum(mono: NDArray[np.float32]) -> Pixels:
    from matplotlib import colormaps

    size = max(32, min(1024, 1 << (max(2, len(mono) // WIDTH) * 4 - 1).bit_length()))
    centres = np.linspace(0, max(0, len(mono) - 1), WIDTH).astype(int)
    padded = np.pad(mono, size // 2)
    frames = np.stack([padded[c : c + size] for c in centres]) * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (WIDTH, bins)
    edges = np.linspace(0, power.shape[1], SPECTRUM + 1).astype(int)
    rows = np.stack([power[:, a : max(b, a + 1)].mean(1) for a, b in zip(edges, edges[1:], strict=False)])
    level = 10 * np.log10(np.maximum(rows, 1e-12))
    loudest = max(float(level.max()), -60.0)
    shade = np.clip((level - loudest + RANGE) / RANGE, 0, 1)[::-1]
    return (colormaps["magma"](shade)[..., :3] * 255).round().astype(np.uint8)
