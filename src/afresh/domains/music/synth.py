"""Scores to audio: notes as sums of decaying sines, like plucked strings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from afresh.core import Sound, UserError
from afresh.domains.music.score import MusicScore

RATE = 22_050
PARTIALS = 12  # maximum; fewer if they would exceed BAND
BAND = 0.45  # highest frequency of a partial, as a share of the rate
REPEATED = 512  # different notes of a score whose waves are kept while it is played
ATTACK, RELEASE = 0.008, 0.06  # seconds; raised cosines, because an abrupt beginning or end is audible as a click
DECAY = 1.2  # seconds in which the lowest partial of C4 decays to 1/e; higher notes and partials decay faster
PEAK = 0.9  # largest absolute sample
LONGEST = 3_600.0  # seconds

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Tone:
    """A note in seconds, with a MIDI pitch and a velocity of 1 to 127."""

    start: float
    seconds: float
    pitch: int
    velocity: int = 90


def frequency(pitch: int) -> float:
    """The frequency of a MIDI pitch in Hz, equally tempered; 69 is A4 with 440 Hz (ISO 16)."""
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


def tones(score: MusicScore) -> list[Tone]:
    """All notes, with times according to the score's tempo."""
    step = 60.0 / score.tempo / score.steps
    return [Tone(n.onset * step, n.duration * step, n.pitch) for n in score.notes]


def play(score: MusicScore, rate: int = RATE) -> Sound:
    """A score as audio. Raises UserError like `synthesise`."""
    return synthesise(tones(score), rate)


def synthesise(notes: Iterable[Tone], rate: int = RATE) -> Sound:
    """Audio of one channel, (T, 1), with a peak of 0.9 however many notes sound together.

    Raises UserError if the rate is not between 4,000 and 192,000 Hz, if there are no notes, and for more than an hour.
    """
    if not 4_000 <= rate <= 192_000:
        raise UserError(f"The rate must be between 4,000 and 192,000 samples per second, not {rate:,}.")
    sequence: Sequence[Tone] = sorted(notes, key=lambda n: n.start)
    if not sequence:
        raise UserError("The score has no notes to play. Give a score with notes.")
    seconds = max(n.start + n.seconds for n in sequence) + RELEASE
    if seconds > LONGEST:
        raise UserError(
            f"The score lasts {seconds / 60:,.0f} minutes; at most {LONGEST / 60:.0f} are rendered. Shorten it."
        )
    mix = np.zeros(int(seconds * rate) + 2, np.float32)
    wave_of = lru_cache(maxsize=REPEATED)(_wave)  # of this score alone: a wave may have megabytes
    for note in sequence:
        wave = wave_of(note.pitch, max(1, round(note.seconds * rate)), rate)
        first = round(note.start * rate)
        mix[first : first + len(wave)] += wave[: len(mix) - first] * np.float32((note.velocity / 127) ** 2)
    peak = float(np.abs(mix).max())
    return Sound((mix * np.float32(PEAK / peak if peak > 0 else 0.0))[:, None], rate)


def _wave(pitch: int, length: int, rate: int) -> Array:
    """A note held for `length` samples, and its release. Partial k has k times the frequency and 1/k of the amplitude
    of the lowest one, and decays 0.7 + 0.3 k times as fast. All partials are powers of one complex exponential."""
    total = length + int(RELEASE * rate)
    low = frequency(pitch)
    time = np.arange(total, dtype=np.float64) / rate
    rate_of_decay = (low / 261.6) ** 0.5 / DECAY  # of the lowest partial, per second
    spiral = np.exp(time * (2j * np.pi * low - 0.3 * rate_of_decay))
    partial, out = spiral.copy(), spiral.imag.copy()
    for k in range(2, min(PARTIALS, int(BAND * rate / low)) + 1):
        partial *= spiral
        out += partial.imag / k
    out *= np.exp(-0.7 * rate_of_decay * time)
    if low > BAND * rate:  # cannot be represented at this rate
        out[:] = 0
    rise = min(total, int(ATTACK * rate))
    out[:rise] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    fall = total - length
    out[length:] *= 0.5 + 0.5 * np.cos(np.pi * (np.arange(fall) + 1) / fall)
    return out.astype(np.float32)
