"""The cells of a sound: the loudness of a band in one slot of 20 ms against that in the next one, how much such a
difference can be relied on, and how it is changed.

A cell is a band of the spectrum and a pair of neighbouring slots. Its difference is half the logarithm of the ratio of
their energies: that of amplitudes, in nepers (8.7 dB). It does not depend on gain, little on phase, and little on what
is done to a sound as a whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float32]
Spectra = NDArray[np.complex64]

LOW_RATE, HIGH_RATE = 8_000, 16_000  # Hz, at which sounds are analysed: up to 4 and up to 8 kHz
HOPS = 250  # of windows, a second
SLOT = 5  # hops
PAIR = 2 * SLOT
OVERLAP = 4  # windows that overlap: each is 16 ms long, and its bins are 62.5 Hz apart
PAIRS = 25  # after which the mark repeats: a second
PERIOD = PAIRS * PAIR  # hops
FLOOR = (10**-2.7, 10**-1.8)  # power of noise relative to that of the sound, at the least and at the most
LEAST_WEIGHT = 0.2  # of cells that are changed
MOST, LEAST = 0.2, 0.04  # change of the logarithm of an amplitude: at most 1.7 dB, in steady tones 0.35 dB
TOGETHER = 4096  # windows that are transformed at a time
STEADY = 1.5  # the change at most, relative to the differences of the sound itself nearby
SLOT_WEIGHTS = (0.5, *[1.0] * (SLOT - 1), 0.5)


def _edges() -> tuple[int, ...]:
    """Of bands, in bins: 125 Hz wide, above 1.25 kHz a tenth of their frequency, like the critical bands of hearing."""
    edges = [1]
    while edges[-1] + max(2, round(0.1 * edges[-1])) <= HIGH_RATE // 2 // 62.5 - 4:
        edges.append(edges[-1] + max(2, round(0.1 * edges[-1])))
    return tuple(edges)


EDGES = _edges()
BANDS = len(EDGES) - 1
CELLS = PAIRS * BANDS


class Cells(NamedTuple):
    """`differences` (n, B) and their `weights` (n, B) in [0, 1), of pairs of slots that begin at successive times."""

    differences: Array
    weights: Array


def bands_at(rate: int) -> int:
    """The number of bands below half the rate."""
    return sum(edge <= rate // 2 / 62.5 for edge in EDGES[1:])


def spectra(x: Array, rate: int) -> Spectra:
    """Of each channel of x (T, C), one a hop: (C, n, bins). Window t is centred at hop t - 2."""
    return _transformed(_frames(x, rate, 1))


def waveform(spectrum: Spectra, length: int) -> Array:
    """The sound (T, C) whose spectra, one a hop, are nearest to these (Griffin and Lim 1984)."""
    channels, n, bins = spectrum.shape
    size = 2 * (bins - 1)
    hop = size // OVERLAP
    frames = (fft.irfft(spectrum, size, axis=2) * (_window(size) * (2 / OVERLAP))).reshape(channels, n, OVERLAP, hop)
    out = np.zeros((channels, n + OVERLAP, hop), np.float32)
    for i in range(OVERLAP):
        out[:, i : i + n] += frames[:, :, i]
    return out.reshape(channels, -1)[:, size : size + length].T


def band_energies(spectrum: Spectra, bands: int) -> Array:
    """In each window and band, over all channels, (n, bands)."""
    power = (np.square(spectrum.real) + np.square(spectrum.imag)).sum(0)
    return power[:, : EDGES[bands]] @ _membership(bands)


def energies(x: Array, rate: int, steps: int = 1) -> Array:
    """In each window and band of a sound (T, C), over all channels, `steps` windows a hop, (n, bands): a part of the
    windows at a time, so that little memory is needed."""
    frames, bands = _frames(x, rate, steps), bands_at(rate)
    parts = range(0, frames.shape[1], TOGETHER)
    return np.concatenate([band_energies(_transformed(frames[:, a : a + TOGETHER]), bands) for a in parts])


def cells(energy: Array, steps: int = 1, every: int = 1) -> Cells:
    """Of energies (n, B), `steps` windows a hop: of pairs that begin at every so many windows, a part of a slot.

    To what is in a slot the power of noise is added, as far as it can be guessed: the median over slots and bands,
    within FLOOR. So differences of silence are zero, and noise that a sound was given afterwards hardly changes those
    of quieter parts.
    """
    first, slot, bands = OVERLAP // 2 * steps, SLOT * steps, energy.shape[1]
    starts = slice(first, len(energy) - first - slot, every)
    inside = np.zeros_like(energy[starts])
    for i, weight in enumerate(SLOT_WEIGHTS):
        inside += weight * energy[starts.start + i * steps : starts.stop + i * steps : every]
    widths = np.diff(EDGES[: bands + 1]).astype(np.float32)
    mean = float(inside.mean(0).sum()) / float(widths.sum())
    noise = np.clip(np.median(inside / widths), FLOOR[0] * mean, FLOOR[1] * mean) * widths + np.float32(1e-12)
    level, ahead = 0.5 * np.log(inside + noise), slot // every
    least = np.minimum(inside[:-ahead], inside[ahead:])
    reliable = np.maximum(least - noise, 0) / (least + noise)
    return Cells(level[:-ahead] - level[ahead:], reliable * np.sqrt(reliable))


def enough(length: int, rate: int) -> bool:
    """Whether a sound of so many samples has at least a pair."""
    return length >= PAIR * (rate // HOPS)


def most_change(differences: Array) -> Array:
    """Of the logarithm of each amplitude, for differences (pairs, B): less in steady tones, where it would be heard as
    roughness."""
    square = np.minimum(np.square(differences), 1)
    padded = np.pad(square, ((2, 2), (0, 0)), mode="edge")
    mean = sum(padded[i : i + len(square)] for i in range(5)) / 5
    return np.clip(STEADY * np.sqrt(mean), LEAST, MOST).astype(np.float32)


def changed(spectrum: Spectra, gains: Array, length: int) -> Array:
    """What is added to a sound (T, C) with these spectra, one a hop, so that the logarithms of amplitudes in the first
    slots of pairs rise by gains (pairs, B) and those in the second fall by as much."""
    bands, n = gains.shape[1], spectrum.shape[1]
    by_hop = np.zeros((n + 1, bands), np.float32)
    slots = np.repeat(np.stack((gains, -gains), 1).reshape(-1, bands), SLOT, axis=0)
    begin = OVERLAP // 2 + 1
    by_hop[begin : begin + len(slots)] = slots[: n + 1 - begin]
    factors = np.expm1((by_hop[1:] + by_hop[:-1]) / 2)  # a window between two slots takes the mean
    spread = np.zeros((n, spectrum.shape[2]), np.float32)
    spread[:, EDGES[0] : EDGES[bands]] = np.repeat(factors, np.diff(EDGES[: bands + 1]), axis=1)
    return waveform(spectrum * spread, length)


def _frames(x: Array, rate: int, steps: int) -> Array:
    """The windows of each channel of x (T, C), `steps` a hop, (C, n, size), as a view."""
    hop = rate // HOPS
    size = OVERLAP * hop
    padded = np.pad(x.T, ((0, 0), (size, 2 * size)))
    return np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, :: hop // steps]


def _transformed(frames: Array) -> Spectra:
    return np.asarray(fft.rfft(frames * _window(frames.shape[2]), axis=2))


@lru_cache(32)
def _membership(bands: int) -> Array:
    """Which bins are in which bands, (bins, bands)."""
    bins = np.arange(EDGES[bands])[:, None]
    return ((bins >= EDGES[:bands]) & (bins < EDGES[1 : bands + 1])).astype(np.float32)


@lru_cache(32)
def _window(size: int) -> Array:
    """The root of a Hann window: its square sums to OVERLAP / 2 over windows that overlap."""
    return np.sin(np.pi * (np.arange(size) / size)).astype(np.float32)
