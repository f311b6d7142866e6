"""Sounds made by formulas: five instruments with random pitch and decay. No recording is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afresh.core import Sound
from afresh.data.audio.views import wav_bytes

RATE = 8_000  # samples a second
SECONDS = 0.75
TIME = np.arange(round(SECONDS * RATE)) / RATE  # seconds, (6000,)
HIGHEST = 3_800.0  # Hz, below half the rate

Wave = NDArray[np.float64]  # (6000,)


def swept(frequency: Wave) -> Wave:
    """A sine whose frequency in Hz is that of each moment."""
    return np.sin(2 * np.pi * np.cumsum(frequency) / RATE)


def bell(rng: np.random.Generator) -> Wave:
    """Partials that are no multiples of one pitch, the high ones shorter."""
    pitch, wave = rng.uniform(350, 900), np.zeros_like(TIME)
    ratios, levels = (0.5, 1.0, 1.19, 1.56, 2.0, 2.74), (0.4, 1.0, 0.5, 0.35, 0.6, 0.3)
    for ratio, level, decay in zip(ratios, levels, (1.0, 0.8, 0.6, 0.5, 0.4, 0.25), strict=True):
        wave += level * np.exp(-TIME / (decay * rng.uniform(0.35, 0.5))) * np.sin(2 * np.pi * pitch * ratio * TIME)
    return wave


def drop(rng: np.random.Generator) -> Wave:
    """A tone that rises quickly while it fades, as a drop in a bucket."""
    low, high = rng.uniform(300, 600), rng.uniform(1_400, 2_600)
    rise = 1 - np.exp(-TIME * rng.uniform(4, 10))
    return swept(low + (high - low) * rise) * np.exp(-TIME / rng.uniform(0.08, 0.16))


def drum(rng: np.random.Generator) -> Wave:
    """A tone that falls quickly, and a stroke of noise."""
    low, high = rng.uniform(45, 80), rng.uniform(140, 260)
    tone = swept(low + (high - low) * np.exp(-TIME * rng.uniform(18, 40))) * np.exp(-TIME / rng.uniform(0.08, 0.16))
    stroke = rng.standard_normal(len(TIME)) * np.exp(-TIME / rng.uniform(0.015, 0.07))
    return tone + rng.uniform(0.15, 0.6) * stroke


def string(rng: np.random.Generator) -> Wave:
    """Multiples of one pitch, the high ones shorter."""
    pitch, wave = 165 * 2 ** rng.uniform(0, 1.8), np.zeros_like(TIME)
    for k in range(1, int(HIGHEST / pitch) + 1):
        wave += np.sin(2 * np.pi * k * pitch * TIME) * np.exp(-TIME * (2.2 + 0.9 * k)) * rng.uniform(0.5, 1) / k
    return wave


def zap(rng: np.random.Generator) -> Wave:
    """A tone with its octave, falling."""
    high, low = rng.uniform(1_000, 1_800), rng.uniform(100, 250)
    frequency = low + (high - low) * np.exp(-TIME * rng.uniform(4, 10))
    return (swept(frequency) + 0.5 * swept(2 * frequency)) * np.exp(-TIME / rng.uniform(0.2, 0.4))


INSTRUMENTS: dict[str, Callable[[np.random.Generator], Wave]] = {
    play.__name__: play for play in (bell, drop, drum, string, zap)
}


def play(label: str, seed: int, index: int) -> Sound:
    """One sound of an instrument; the same arguments give the same samples."""
    rng = np.random.default_rng([seed, list(INSTRUMENTS).index(label), index])
    wave = INSTRUMENTS[label](rng)
    wave *= np.minimum(1, np.minimum(TIME / 0.004, (SECONDS - TIME) / 0.02))  # no click at either end
    wave *= rng.uniform(0.5, 0.8) / np.abs(wave).max()
    return Sound(wave.astype(np.float32)[:, None], RATE)


def write_sounds(folder: Path, each: int, seed: int) -> None:
    """`each` sounds of every instrument as WAV files in folders named after the instruments."""
    for label in INSTRUMENTS:
        (folder / label).mkdir(parents=True)
        for index in range(each):
            (folder / label / f"{index:03d}.wav").write_bytes(wav_bytes(play(label, seed, index)))
