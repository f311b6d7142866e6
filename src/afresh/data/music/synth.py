"""Scores to sound, so that they can be heard: notes as sums of sines that decay, like plucked strings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from afresh.core import Sound, UserError
from afresh.data.music.score import Score

RATE = 22_050
PARTIALS = 12  # at most; fewer where they would reach the highest frequency
BAND = 0.45  # of the rate: no partial lies above
ATTACK, RELEASE = 0.008, 0.06  # seconds, raised cosines: a sound that begins or ends at once clicks
DECAY = 1.2  # seconds in which the lowest partial of C4 falls to 1/e; higher notes and partials fall faster
LOUDEST = 0.9  # of the highest value
LONGEST = 3_600.0  # seconds

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Tone:
    """Seconds, a MIDI pitch, and how loud: velocity 1 to 127."""

    start: float
    seconds: float
    pitch: int
    velocity: int = 90


def frequency(pitch: int) -> float:
    """Hertz, equally tempered; 69 is A4, 440 Hz (ISO 16)."""
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


def tones(score: Score) -> list[Tone]:
    """Every note at the score's tempo."""
    step = 60.0 / score.tempo / score.steps
    return [Tone(n.onset * step, n.duration * step, n.pitch) for n in score.notes]


def play(score: Score, rate: int = RATE) -> Sound:
    """A score as sound. Raises UserError as `synthesise`."""
    return synthesise(tones(score), rate)


def synthesise(notes: Iterable[Tone], rate: int = RATE) -> Sound:
    """One channel, (T, 1). The loudest place is 0.9, however many notes sound together.

    Raises UserError for a rate that is no sound's, for no notes, and for more than an hour.
    """
    if not 4_000 <= rate <= 192_000:
        raise UserError(f"Sounds have from 4,000 to 192,000 samples a second. Given: {rate:,}.")
    found: Sequence[Tone] = sorted(notes, key=lambda n: n.start)
    if not found:
        raise UserError("There is no note to be heard: give a score with notes.")
    seconds = max(n.start + n.seconds for n in found) + RELEASE
    if seconds > LONGEST:
        raise UserError(
            f"The score lasts {seconds / 60:,.0f} minutes; at most {LONGEST / 60:.0f} are rendered. Cut it."
        )
    mix = np.zeros(int(seconds * rate) + 2, np.float32)
    for note in found:
        wave = _wave(note.pitch, max(1, round(note.seconds * rate)), rate)
        first = round(note.start * rate)
        mix[first : first + len(wave)] += wave[: len(mix) - first] * np.float32((note.velocity / 127) ** 2)
    peak = float(np.abs(mix).max())
    return Sound((mix * np.float32(LOUDEST / peak if peak > 0 else 0.0))[:, None], rate)


@lru_cache(maxsize=512)
def _wave(pitch: int, length: int, rate: int) -> Array:
    """A note held for `length` samples, and its release: partial k at k times the pitch, 1/k as loud, decaying
    0.7 + 0.3 k times as fast as the lowest. The partials are powers of one spiral, which takes two exponentials."""
    whole = length + int(RELEASE * rate)
    low = frequency(pitch)
    time = np.arange(whole, dtype=np.float64) / rate
    rate_of_decay = (low / 261.6) ** 0.5 / DECAY  # of the lowest partial, a second
    spiral = np.exp(time * (2j * np.pi * low - 0.3 * rate_of_decay))
    partial, out = spiral.copy(), spiral.imag.copy()
    for k in range(2, min(PARTIALS, int(BAND * rate / low)) + 1):
        partial *= spiral
        out += partial.imag / k
    out *= np.exp(-0.7 * rate_of_decay * time)
    if low > BAND * rate:  # nothing of it can be heard at this rate
        out[:] = 0
    rise = min(whole, int(ATTACK * rate))
    out[:rise] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    fall = whole - length
    out[length:] *= 0.5 + 0.5 * np.cos(np.pi * (np.arange(fall) + 1) / fall)
    return out.astype(np.float32)
