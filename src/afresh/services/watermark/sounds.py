"""The imperceptible mark of sounds, and the exact test for it.

A cell is a band of the spectrum and a pair of neighbouring slots of 20 ms. Its difference is half the logarithm of the
ratio of their energies: that of amplitudes, in nepers (8.7 dB). It does not depend on gain, little on phase, and little
on what is done to a sound as a whole.

These differences are moved to the nearest point of a lattice whose
phase a key draws for each cell (dither modulation, Chen and Wornell 2001, here of logarithms of amplitudes, so that the
mark follows the spectrum of the sound, and silence stays silent). The test compares phases with those of a key:
whatever the sound is, those of other keys are uniform, so that the p-value is true over keys.

There are two forms. In the first, phases depend on the payload alone: each of its four bytes chooses one of 256
codewords. Where this would not survive noise at 20 dB, as in short sounds and in nearly pure tones, the second is used:
a phase that does not depend on the payload on the coarse lattice, which needs far fewer cells to be found, and the
payload on one three times as fine within it.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import shake_256
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import fft
from scipy.special import chdtrc, ndtr

from afresh.core import Sound, UserError
from afresh.services.watermark import check_key

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


SYMBOLS, VALUES = 4, 256  # a payload of four bytes
PURPOSE = b"afresh: mark in sounds, 1"


class Codes(NamedTuple):
    """`owner` (CELLS,): the symbol of each cell. `presence` (CELLS,) complex: phasors that do not depend on the
    payload. `symbols`: of each symbol its cells (n,), and phasors (VALUES, n) complex, one row for each value."""

    owner: NDArray[np.uint8]
    presence: NDArray[np.complex64]
    symbols: tuple[tuple[NDArray[np.int64], NDArray[np.complex64]], ...]


def presence(key: bytes) -> Array:
    """In turns, (PAIRS, BANDS)."""
    return _turns(key, "presence", CELLS).reshape(PAIRS, BANDS)


def payload_phases(key: bytes, payload: int) -> Array:
    """In turns, (PAIRS, BANDS): each cell carries one of the four bytes of the payload."""
    owner, out = owners(key), np.empty(CELLS, np.float32)
    for symbol in range(SYMBOLS):
        value = payload >> 8 * symbol & (VALUES - 1)
        of = owner == symbol
        out[of] = _turns(key, f"{symbol} {value}", int(of.sum()))
    return out.reshape(PAIRS, BANDS)


@lru_cache(4)
def codes(key: bytes) -> Codes:
    owner = owners(key)
    symbols = []
    for symbol in range(SYMBOLS):
        of = np.flatnonzero(owner == symbol)
        turns = np.stack([_turns(key, f"{symbol} {value}", len(of)) for value in range(VALUES)])
        symbols.append((of, _phasors(turns)))
    return Codes(owner, _phasors(_turns(key, "presence", CELLS)), tuple(symbols))


def owners(key: bytes) -> NDArray[np.uint8]:
    """The symbol of the payload that each cell carries, (CELLS,)."""
    return np.frombuffer(_bytes(key, "owner", CELLS), np.uint8) % SYMBOLS


def _turns(key: bytes, purpose: str, count: int) -> Array:
    """Uniform on [0, 1), in steps of 2^-16."""
    return np.frombuffer(_bytes(key, purpose, 2 * count), "<u2").astype(np.float32) / np.float32(65536)


def _bytes(key: bytes, purpose: str, count: int) -> bytes:
    """SHAKE256 (FIPS 202), which is the same in every version of Python."""
    return shake_256(PURPOSE + bytes([len(key)]) + key + purpose.encode()).digest(count)


def _phasors(turns: Array) -> NDArray[np.complex64]:
    return np.exp(-2j * np.pi * turns).astype(np.complex64)


STEP = 0.45  # of the coarse lattice, in nepers: 3.9 dB
FINER = 3  # steps of the fine lattice in one of the coarse one
ROUNDS = 4  # in which gains approach what they are meant to do, since windows and bands overlap
NOISE = 0.1  # relative to the sound: 20 dB, which the first form has to survive
SURE = 4.5  # standard deviations by which each byte has to stand out then
PART = 20  # seconds that are marked at a time
LONGEST = 300  # seconds that are tested at most
STEPS = 4  # positions a hop at which the test looks for the beginning of the mark: every ms
CERTAIN = 0.99  # probability above which a payload is told


class SoundEvidence(NamedTuple):
    """What speaks for a mark in a sound. `p_value`: the probability of as much evidence in a sound that was made
    without the key, at most; 1 where nothing could be tested. `payload`: None where it cannot be told with
    certainty."""

    p_value: float
    payload: int | None


def mark_sound(sound: Sound, key: bytes, payload: int) -> Sound:
    """The sound with a mark, within [-1, 1]; what is shorter than 40 ms, or silent, as it is.

    `key`: 16 to 64 secret bytes. `payload`: 32 bits. Raises UserError for other ones.
    """
    check_key(key, "a mark in sounds")
    if not 0 <= payload < 1 << 8 * SYMBOLS:
        raise UserError(f"The payload of a mark in sounds is a number of 32 bits. Given: {payload}.")
    rate = _rate(sound)
    x = _resampled(sound.samples, sound.rate, rate)
    if not enough(len(x), rate):
        return sound
    out = np.empty_like(x)
    for begin in range(0, len(x), PART * rate):
        out[begin : begin + PART * rate] = _mark(x[begin : begin + PART * rate], rate, key, payload)
    added = _resampled(out, rate, sound.rate)[: len(sound.samples)]
    added = np.pad(added, ((0, len(sound.samples) - len(added)), (0, 0)))
    added[sound.samples == 0] = 0
    return Sound(np.clip(sound.samples + added, -1, 1).astype(np.float32), sound.rate)


def sound_evidence(sound: Sound, key: bytes) -> SoundEvidence:
    """Tests whether a sound bears the mark of a key; of one longer than five minutes, the first five.

    Under a key that has nothing to do with the sound, each phase is uniform and independent, whatever the cells are,
    and the sum of w cos(phase) over cells with weights w is close to a normal variable with variance sum(w^2) / 2, with
    lighter tails. The payload's bytes are independent: their p-values, each for the best of 256 codewords (Šidák 1967),
    are combined by Fisher's method (1932). The mark may begin anywhere in its period of a second: half of the
    probability of a false alarm is spent on its beginning with the sound, half on all other positions, and of each a
    half on either form (Bonferroni).
    Raises UserError for a key of another length.
    """
    check_key(key, "a mark in sounds")
    rate = _rate(sound)
    x = _resampled(sound.samples[: LONGEST * sound.rate], sound.rate, rate)
    if not enough(len(x), rate) or not np.any(x):
        return SoundEvidence(1.0, None)
    found = cells(energies(x, rate, STEPS), STEPS)
    coarse, keyed = _at_each_beginning(found, STEP), codes(key)
    spread = _deviation(coarse)
    of_presence = ndtr(-_real_product(coarse, keyed.presence[None])[:, 0] / spread)
    scores = [
        _real_product(coarse[:, of], phasors) / _deviation(coarse[:, of])[:, None] for of, phasors in keyed.symbols
    ]
    best = np.stack([score.max(1) for score in scores], 1).astype(np.float64)
    each = np.log(np.maximum(-np.expm1(VALUES * np.log1p(-ndtr(-best))), 1e-300))
    of_payload = chdtrc(2 * SYMBOLS, -2 * each.sum(1))

    share = np.full(len(coarse), 0.25 / (len(coarse) - 1))
    share[0] = 0.25
    first, second = of_payload / share, of_presence / share
    p_value = min(1.0, float(first.min()), float(second.min()))
    if first.min() <= second.min():
        at = int(first.argmin())
        return SoundEvidence(p_value, _told([score[at] for score in scores]))
    fine = _at_each_beginning(found, STEP / FINER)[second.argmin()][None]
    scores = [_real_product(fine[:, of], phasors) / _deviation(fine[:, of])[:, None] for of, phasors in keyed.symbols]
    return SoundEvidence(p_value, _told([score[0] for score in scores]))


def _mark(x: Array, rate: int, key: bytes, payload: int) -> Array:
    """What is added to a sound (T, C) to mark it."""
    spectrum = spectra(x, rate)
    bands = bands_at(rate)
    pairs = _pairs(band_energies(spectrum, bands))
    place = np.arange(len(pairs.differences)) % PAIRS
    phases = payload_phases(key, payload)[place, :bands]

    def moved_to(wanted: Array) -> Array:
        gains, now, added = np.zeros_like(wanted), pairs.differences, np.zeros_like(x)
        most = np.where(pairs.weights > LEAST_WEIGHT, most_change(pairs.differences), 0)
        for _ in range(ROUNDS):
            gains = np.clip(gains + (wanted - now) * pairs.weights, -most, most)
            added = changed(spectrum, gains, len(x))
            now = _pairs(energies(x + added, rate)).differences
        return added

    added = moved_to(_nearest(pairs.differences, phases, STEP))
    if _survives(x + added, rate, key, phases):
        return added
    coarse = _nearest(pairs.differences, presence(key)[place, :bands], STEP)
    return moved_to(_nearest(coarse, phases, STEP / FINER))


def _survives(x: Array, rate: int, key: bytes, phases: Array) -> bool:
    """Whether each byte of the payload still stands out in the first form once noise is added to x (T, C)."""
    noise = np.random.default_rng(0).standard_normal(x.shape, np.float32)
    found = _pairs(energies(x + noise * np.sqrt(np.square(x).mean()) * NOISE, rate))
    turned = found.weights * np.exp(2j * np.pi * (found.differences / STEP - phases))
    turned = np.pad(turned, ((0, -len(turned) % PAIRS), (0, 0))).reshape(-1, PAIRS, turned.shape[1]).sum(0)
    owner = owners(key).reshape(PAIRS, BANDS)[:, : turned.shape[1]]
    symbols = [turned[owner == symbol][None] for symbol in range(SYMBOLS)]
    return all(of.real.sum() > SURE * _deviation(of)[0] for of in symbols)


def _pairs(energy: Array) -> Cells:
    """The pairs from the beginning of a sound on, none of which overlap."""
    found = cells(energy, every=SLOT)
    return Cells(found.differences[::2], found.weights[::2])


def _nearest(differences: Array, phases: Array, step: float) -> Array:
    """The nearest points of lattices of a step with phases in turns."""
    away = phases - differences / step
    return (differences + step * (away - np.round(away))).astype(np.float32)


def _at_each_beginning(found: Cells, step: float, steps: int = STEPS) -> NDArray[np.complex64]:
    """The phasors of cells on a lattice, with their weights, summed over periods, (positions, CELLS): one row for each
    position in the sound's first period at which the mark may begin."""
    phasors = found.weights * np.exp(2j * np.pi / step * found.differences)
    period = PERIOD * steps
    phasors = np.pad(phasors, ((0, -len(phasors) % period), (0, BANDS - phasors.shape[1])))
    folded = phasors.reshape(-1, period, BANDS).sum(0).astype(np.complex64)
    at = (np.arange(period)[:, None] + PAIR * steps * np.arange(PAIRS)) % period
    return folded[at].reshape(period, CELLS)


def _real_product(x: NDArray[np.complex64], phasors: NDArray[np.complex64]) -> Array:
    """The real part of x (n, cells) times phasors (m, cells), summed over cells, (n, m)."""
    return x.real @ phasors.real.T - x.imag @ phasors.imag.T


def _deviation(x: NDArray[np.complex64]) -> Array:
    """The standard deviation of `_real_product` over keys, (n,)."""
    return np.maximum(np.sqrt(np.square(np.abs(x)).sum(1) / 2), 1e-9)


def _told(scores: list[Array]) -> int | None:
    """The payload of the scores (VALUES,) of its bytes, in standard deviations, if its probability is CERTAIN. If the
    right one has the greatest of them, s, that of another one with t is smaller by exp(s (s - t))."""
    probability, payload = 1.0, 0
    for symbol, score in enumerate(scores):
        value = int(score.argmax())
        probability /= float(np.exp(score[value] * (score - score[value])).sum())
        payload |= value << 8 * symbol
    return payload if probability > CERTAIN else None


def _rate(sound: Sound) -> int:
    """At which a sound is analysed."""
    return LOW_RATE if sound.rate <= LOW_RATE else HIGH_RATE


def _resampled(x: Array, rate: int, to: int) -> Array:
    x = np.asarray(x, np.float32)
    return x if rate == to or not len(x) else np.asarray(soxr.resample(x, rate, to), np.float32)
