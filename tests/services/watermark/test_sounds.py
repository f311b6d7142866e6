"""The mark of sounds: that it is found after what is usually done to sounds, that its p-values are true where there is
none, and what it leaves as it is."""

from __future__ import annotations

import io
from hashlib import sha256

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import kstest

from afresh.core import Sound, UserError
from afresh.services.watermark import sounds
from afresh.services.watermark.sounds import (
    PAIR,
    PAIRS,
    STEP,
    bands_at,
    cells,
    changed,
    energies,
    mark_sound,
    owners,
    payload_phases,
    presence,
    sound_evidence,
    spectra,
    waveform,
)

Array = NDArray[np.float32]
KEY, OTHER = b"a key of sixteen", b"another sixteen!"
PAYLOAD = 0xC0FFEE42


def voice(rate: int = 8_000, seconds: float = 1.0, seed: int = 0, channels: int = 1) -> Sound:
    """Harmonic tones whose pitch and loudness change, with filtered noise between them."""
    rng, t = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * (1.3 * t + rng.random()))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    partials = [np.sin(k * phase + 6 * rng.random()) / k for k in range(1, 25) if k * 160 < rate / 2]
    noise = lfilter([1.0], [1.0, -0.7], rng.standard_normal(len(t)))
    envelope = np.clip(np.sin(2 * np.pi * (2.3 * t + rng.random())), 0.02, 1)
    mono = 0.15 * envelope * np.sum(partials, 0) + 0.03 * (1 - envelope) * noise
    return Sound(np.stack([mono * (1 - 0.3 * c) for c in range(channels)], 1).astype(np.float32), rate)


def hiss(rate: int = 8_000, seconds: float = 1.0, seed: int = 0) -> Sound:
    noise = np.random.default_rng(seed).standard_normal((round(seconds * rate), 1))
    return Sound((0.1 * lfilter([1.0], [1.0, -0.8], noise, axis=0)).astype(np.float32), rate)


def coded(sound: Sound, form: str, subtype: str) -> Sound:
    file = io.BytesIO()
    rate = {"bitrate_mode": "CONSTANT", "compression_level": 0.0} if form == "MP3" else {}  # 64 kbit/s at 8 kHz
    soundfile.write(file, sound.samples, sound.rate, format=form, subtype=subtype, **rate)
    file.seek(0)
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return Sound(samples, rate)


def noisy(sound: Sound, db: float = 20) -> Sound:
    noise = np.random.default_rng(9).standard_normal(sound.samples.shape) * sound.samples.std() * 10 ** (-db / 20)
    return Sound((sound.samples + noise).astype(np.float32), sound.rate)


def resampled(sound: Sound, rate: int) -> Sound:
    return Sound(np.asarray(soxr.resample(sound.samples, sound.rate, rate), np.float32), rate)


ATTACKS = {
    "none": lambda s: s,
    "noise": noisy,
    "trimmed": lambda s: Sound(s.samples[len(s.samples) // 10 + 3 :], s.rate),
    "quieter": lambda s: Sound(s.samples * np.float32(0.2), s.rate),
    "16 bit": lambda s: coded(s, "WAV", "PCM_16"),
    "FLAC": lambda s: coded(s, "FLAC", "PCM_16"),
    "OGG": lambda s: coded(s, "OGG", "VORBIS"),
    "MP3": lambda s: coded(s, "MP3", "MPEG_LAYER_III"),
    "at 16 kHz and back": lambda s: resampled(resampled(s, 16_000), 8_000),
    "at 44.1 kHz": lambda s: resampled(s, 44_100),
    "upside down": lambda s: Sound(-s.samples, s.rate),
}


LOSSLESS = ("none", "quieter", "16 bit", "FLAC")


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("made", [voice, hiss])
def test_the_mark_of_a_second_is_found(made, attack: str) -> None:  # type: ignore[no-untyped-def]
    marked = ATTACKS[attack](mark_sound(made(), KEY, PAYLOAD))
    evidence = sound_evidence(marked, KEY)
    assert evidence.p_value < 1e-6
    assert evidence.payload == PAYLOAD or (evidence.payload is None and attack not in LOSSLESS)


def test_without_the_mark_and_with_another_key_there_is_no_evidence() -> None:
    marked = mark_sound(voice(), KEY, PAYLOAD)
    for sound, key in ((voice(), KEY), (marked, OTHER), (hiss(), OTHER)):
        evidence = sound_evidence(sound, key)
        assert evidence.p_value > 1e-3 and evidence.payload is None


@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.5])
def test_scores_are_normal_over_keys_whatever_the_sound(seconds: float) -> None:
    for sound in (voice(seconds=seconds), hiss(seconds=seconds)):
        found = cells(energies(sound.samples, 8_000))
        phasors = sounds._at_each_beginning(found, STEP, 1)[:1]
        turns = np.stack([presence(sha256(bytes([i % 256, i // 256])).digest()).ravel() for i in range(1_000)])
        scores = sounds._real_product(phasors, np.exp(-2j * np.pi * turns)) / sounds._deviation(phasors)
        assert kstest(scores[0], "norm").pvalue > 0.01


def test_p_values_are_true_over_keys() -> None:
    sound, n = voice(seconds=0.25), 80
    p_values = np.array([sound_evidence(sound, sha256(bytes([i])).digest()).p_value for i in range(n)])
    for level in (0.5, 0.2, 0.05):  # at most, since all beginnings are counted as if they had nothing in common
        assert np.mean(p_values <= level) <= level + 3 * np.sqrt(level * (1 - level) / n)
    assert np.mean(p_values <= 0.5) > 0.1


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_number_of_channels(rate: int, channels: int) -> None:
    sound = voice(rate, 2.0, channels=channels)
    marked = mark_sound(sound, KEY, PAYLOAD)
    assert marked.samples.shape == sound.samples.shape and marked.rate == rate and marked.samples.dtype == np.float32
    assert sound_evidence(marked, KEY).p_value < 1e-8
    mono = Sound(marked.samples.mean(1, keepdims=True), rate)
    assert sound_evidence(mono, KEY).p_value < 1e-8


def test_the_mark_is_far_below_the_sound_and_follows_it() -> None:
    for sound in (voice(), hiss()):
        added = mark_sound(sound, KEY, PAYLOAD).samples - sound.samples
        ratio = 10 * np.log10(np.square(sound.samples).sum() / np.square(added).sum())
        assert 18 < ratio < 40


def test_marking_is_deterministic() -> None:
    assert np.array_equal(mark_sound(voice(), KEY, 5).samples, mark_sound(voice(), KEY, 5).samples)


def test_silence_stays_silent() -> None:
    silence = Sound(np.zeros((8_000, 1), np.float32), 8_000)
    assert np.array_equal(mark_sound(silence, KEY, 1).samples, silence.samples)
    assert sound_evidence(silence, KEY) == (1.0, None)
    part = np.concatenate((np.zeros((4_000, 1), np.float32), voice(seconds=1).samples, np.zeros((900, 1), np.float32)))
    marked = mark_sound(Sound(part, 8_000), KEY, 1).samples
    assert not np.any(marked[:4_000]) and not np.any(marked[-900:])


@pytest.mark.parametrize("length", [0, 1, 100, 319])
def test_what_is_shorter_than_a_pair_of_slots_is_left_as_it_is(length: int) -> None:
    sound = Sound(voice().samples[:length], 8_000)
    assert mark_sound(sound, KEY, 1) is sound
    assert sound_evidence(sound, KEY) == (1.0, None)


def test_a_quarter_of_a_second_has_a_mark() -> None:
    found = [sound_evidence(mark_sound(voice(seconds=0.25, seed=i), KEY, 7), KEY).p_value < 1e-4 for i in range(8)]
    assert np.mean(found) > 0.7


def test_no_sample_exceeds_full_scale() -> None:
    loud = Sound(np.clip(voice().samples * 20, -1, 1), 8_000)
    assert np.abs(mark_sound(loud, KEY, 1).samples).max() <= 1


def test_long_sounds_are_marked_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "TOGETHER", 2)
    sound = voice(seconds=5.3)
    marked = mark_sound(sound, KEY, PAYLOAD)
    assert sound_evidence(marked, KEY).payload == PAYLOAD
    last = Sound(marked.samples[-10_000:], 8_000)
    assert sound_evidence(last, KEY).p_value < 1e-6


@pytest.mark.parametrize("key", [b"", b"fifteen bytes..", bytes(65)])
def test_keys_of_another_length_are_refused(key: bytes) -> None:
    for asked in (lambda: mark_sound(voice(), key, 1), lambda: sound_evidence(voice(), key)):
        with pytest.raises(UserError, match="16 to 64 bytes"):
            asked()


@pytest.mark.parametrize("payload", [-1, 1 << 32])
def test_payloads_of_more_than_32_bits_are_refused(payload: int) -> None:
    with pytest.raises(UserError, match="32 bits"):
        mark_sound(voice(), KEY, payload)


# The parts.


def test_a_sound_is_what_its_spectra_say() -> None:
    x = voice(channels=2).samples
    assert np.allclose(waveform(spectra(x, 8_000), len(x)), x, atol=1e-6)


def test_differences_do_not_depend_on_gain_and_those_of_a_steady_tone_are_zero() -> None:
    x = voice().samples
    assert np.allclose(cells(energies(x, 8_000)).differences, cells(energies(0.1 * x, 8_000)).differences, atol=2e-3)
    tone = np.sin(2 * np.pi * 1_000 * np.arange(8_000) / 8_000)[:, None].astype(np.float32)
    found = cells(energies(tone, 8_000), every=PAIR // 2)
    inside = found.weights > 0.9
    assert inside.any() and np.abs(found.differences[2:-4][inside[2:-4]]).max() < 0.01


def test_gains_change_differences_as_they_should() -> None:
    x = hiss(seconds=1).samples
    before = cells(energies(x, 8_000), every=PAIR // 2).differences[::2]
    gains = np.full_like(before, 0.1)
    after = cells(energies(x + changed(spectra(x, 8_000), gains, len(x)), 8_000), every=PAIR // 2).differences[::2]
    assert 0.1 < np.median(after - before) < 0.2  # the first slots rise and the second ones fall, smeared by windows


def test_the_nearest_point_of_a_lattice() -> None:
    values = np.linspace(-2, 2, 101, dtype=np.float32)
    nearest = sounds._nearest(values, np.full_like(values, 0.25), 0.5)
    assert np.abs(nearest - values).max() <= 0.25 + 1e-6
    turns = nearest / 0.5 - 0.25
    assert np.allclose(turns, np.round(turns), atol=1e-5)


def test_phases_are_those_of_every_version() -> None:
    assert presence(KEY).shape == payload_phases(KEY, 0).shape == (PAIRS, presence(KEY).shape[1])
    assert presence(KEY).ravel()[:3].tolist() == [0.951416015625, 0.8986968994140625, 0.210205078125]
    assert payload_phases(KEY, PAYLOAD)[0, :2].tolist() == [0.016937255859375, 0.9839019775390625]
    assert np.bincount(owners(KEY), minlength=4).min() > 100


def test_each_byte_of_a_payload_moves_its_own_cells() -> None:
    differ = payload_phases(KEY, 0x01020304) != payload_phases(KEY, 0x01FF0304)
    assert np.array_equal(differ.ravel(), owners(KEY) == 2)


def test_bands_end_below_half_the_rate() -> None:
    assert bands_at(8_000) < bands_at(16_000) == presence(KEY).shape[1]
