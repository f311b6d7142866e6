"""Sounds: how long and how loud they are, and what is missing in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from afresh.core.item_kind import Sound
from afresh.services.collect.extract.media import decoded
from afresh.services.collect.record import Record
from afresh.services.collect.rules import Amount, Decibels, Share, Verdict, rule

AUDIO = ("audio",)
FULL = 0.999  # of full scale; samples from here on count as clipped
RUN = 3  # neighbouring samples that are clipped; a single one may be a peak
QUIET = -120.0  # decibels of full scale, of digital silence
WINDOW = 2048  # samples of a spectrum
BELOW = 60.0  # decibels below the strongest frequency, from which a frequency counts as missing
MOST = 1 << 22  # samples that spectra are made of: 95 s at 44,100 Hz


@dataclass(frozen=True)
class Hearing:
    """Numbers of a sound. level: root mean square in decibels of full scale. clipped: share of the samples that are at
    full scale together with their neighbours. bandwidth: Hz, the highest frequency within BELOW of the strongest."""

    seconds: float
    level: float
    clipped: float
    bandwidth: float


@lru_cache(maxsize=1)
def hearing(content: bytes) -> Hearing:
    """The numbers of a sound file."""
    sound: Sound = decoded("audio", content)
    samples = np.asarray(sound.samples, np.float32)
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    level = 10 * float(np.log10(power)) if power > 0 else QUIET
    return Hearing(sound.seconds, max(level, QUIET), clipped(samples), bandwidth(samples.mean(axis=1), sound.rate))


def clipped(samples: NDArray[np.float32]) -> float:
    """The share of samples (T, C) that are in runs of at least RUN at full scale."""
    if len(samples) < RUN:
        return 0.0
    full = np.abs(samples) >= FULL
    starts = np.logical_and.reduce([full[i : len(full) - RUN + 1 + i] for i in range(RUN)])
    inside = np.zeros_like(full)
    for i in range(RUN):
        inside[i : len(full) - RUN + 1 + i] |= starts
    return float(inside.mean())


def bandwidth(samples: NDArray[np.float32], rate: int) -> float:
    """Hz, of samples (T,): the highest frequency whose mean power is within BELOW decibels of the strongest."""
    if len(samples) < WINDOW:
        samples = np.pad(samples, (0, WINDOW - len(samples)))
    frames = samples[: min(len(samples), MOST) // WINDOW * WINDOW].reshape(-1, WINDOW)
    window = np.hanning(WINDOW).astype(np.float32)
    power = np.zeros(WINDOW // 2 + 1)
    for start in range(0, len(frames), 256):
        power += (np.abs(np.fft.rfft(frames[start : start + 256] * window, axis=1)) ** 2).sum(axis=0)
    strongest = power.max()
    if strongest <= 0:
        return 0.0
    return float(np.flatnonzero(power >= strongest * 10 ** (-BELOW / 10))[-1] * rate / WINDOW)


@rule(AUDIO)
def sound_numbers(record: Record) -> Verdict:
    """Seconds, level, clipping and bandwidth are noted as scores."""
    found = hearing(record.content or b"")
    return record.scored(
        sound_seconds=round(found.seconds, 3),
        sound_level=round(found.level, 2),
        sound_clipped=round(found.clipped, 5),
        sound_bandwidth=round(found.bandwidth, 1),
    )


@rule(AUDIO, value=-60.0, accepts=Decibels)
def sound_silent(record: Record, value: float) -> Verdict:
    """The level (root mean square) is above so many decibels of full scale."""
    level = hearing(record.content or b"").level
    return record if level > value else f"its level is {level:.1f} dB of full scale"


@rule(AUDIO, on=False, value=0.01, accepts=Share)
def sound_clipped(record: Record, value: float) -> Verdict:
    """At most this share of the samples is at full scale together with its neighbours, {RUN} or more in a row."""
    share = hearing(record.content or b"").clipped
    return record if share <= value else f"{share:.1%} of its samples are clipped"


@rule(AUDIO, on=False, value=3_500.0, accepts=Amount)
def sound_narrow(record: Record, value: float) -> Verdict:
    """There are frequencies of at least so many Hz, whose mean power is within {BELOW:.0f} decibels of the
    strongest."""
    highest = hearing(record.content or b"").bandwidth
    return record if highest >= value else f"it has no frequencies above {highest:,.0f} Hz"


@rule(AUDIO, on=False, value=0.5, accepts=Amount)
def sound_short(record: Record, value: float) -> Verdict:
    """A sound lasts at least so many seconds."""
    seconds = hearing(record.content or b"").seconds
    return record if seconds >= value else f"it lasts {seconds:.2f} s"


@rule(AUDIO, on=False, value=600.0, accepts=Amount)
def sound_long(record: Record, value: float) -> Verdict:
    """A sound lasts at most so many seconds."""
    seconds = hearing(record.content or b"").seconds
    return record if seconds <= value else f"it lasts {seconds:,.1f} s"
