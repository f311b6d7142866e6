"""The imperceptible mark of sounds, and the exact test for it.

The differences between neighbouring slots of a band (`sound_cells`) are moved to the nearest point of a lattice whose
phase a key draws for each cell (dither modulation, Chen and Wornell 2001, here of logarithms of amplitudes, so that the
mark follows the spectrum of the sound, and silence stays silent). The test compares phases with those of a key:
whatever the sound is, those of other keys are uniform, so that the p-value is true over keys.

There are two forms. In the first, phases depend on the payload alone: each of its four bytes chooses one of 256
codewords. Where this would not survive noise at 20 dB, as in short sounds and in nearly pure tones, the second is used:
a phase that does not depend on the payload on the coarse lattice, which needs far fewer cells to be found, and the
payload on one three times as fine within it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtr

from afresh.core import Sound, UserError
from afresh.services.watermark.sound_cells import (
    BANDS,
    CELLS,
    HIGH_RATE,
    LEAST_WEIGHT,
    LOW_RATE,
    PAIR,
    PAIRS,
    PERIOD,
    SLOT,
    Cells,
    band_energies,
    bands_at,
    cells,
    changed,
    energies,
    enough,
    most_change,
    spectra,
)
from afresh.services.watermark.sound_phases import SYMBOLS, VALUES, codes, owners, payload_phases, presence

Array = NDArray[np.float32]

LEAST_KEY, LONGEST_KEY = 16, 64  # bytes
STEP = 0.45  # of the coarse lattice, in nepers: 3.9 dB
FINER = 3  # steps of the fine lattice in one of the coarse one
ROUNDS = 4  # in which gains approach what they are meant to do, since windows and bands overlap
NOISE = 0.1  # relative to the sound: 20 dB, which the first form has to survive
SURE = 4.5  # standard deviations by which each byte has to stand out then
TOGETHER = 20  # seconds that are marked at a time
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
    _check(key)
    if not 0 <= payload < 1 << 8 * SYMBOLS:
        raise UserError(f"The payload of a mark in sounds is a number of 32 bits. Given: {payload}.")
    rate = _rate(sound)
    x = _resampled(sound.samples, sound.rate, rate)
    if not enough(len(x), rate):
        return sound
    out = np.empty_like(x)
    for begin in range(0, len(x), TOGETHER * rate):
        out[begin : begin + TOGETHER * rate] = _mark(x[begin : begin + TOGETHER * rate], rate, key, payload)
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
    _check(key)
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


def _check(key: bytes) -> None:
    if not LEAST_KEY <= len(key) <= LONGEST_KEY:
        raise UserError(
            f"The key of a mark in sounds has {LEAST_KEY} to {LONGEST_KEY} bytes. Given: {len(key)}. "
            "Make one with secrets.token_bytes(32)."
        )
