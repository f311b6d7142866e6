"""The spoken notice: what is put in front of a sound, how loud it is, and that the sound itself stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import Sound
from afresh.data.audio.waves import loudness_db
from afresh.services.disclosure.label import PAUSE, QUIETEST, SPOKEN, audible_label
from afresh.services.watermark.sounds import mark_sound, sound_evidence

KEY = b"a key of sixteen"


def noise(rate: int, channels: int = 1, level: float = 0.05, seconds: float = 2.0) -> Sound:
    samples = np.random.default_rng(0).standard_normal((round(seconds * rate), channels)) * level
    return Sound(samples.astype(np.float32), rate)


@pytest.mark.parametrize(("rate", "channels"), [(4_000, 1), (8_000, 2), (22_050, 1), (48_000, 2)])
def test_the_notice_and_a_pause_come_before_the_sound(rate: int, channels: int) -> None:
    sound = noise(rate, channels)
    labelled = audible_label(sound)
    before = len(labelled.samples) - len(sound.samples)
    assert labelled.rate == rate and labelled.samples.shape[1] == channels and labelled.samples.dtype == np.float32
    assert 2 < before / rate < 3.5
    assert np.array_equal(labelled.samples[before:], sound.samples)
    assert not np.any(labelled.samples[before - round(PAUSE * rate) : before])
    assert all(np.array_equal(labelled.samples[:before, 0], labelled.samples[:before, c]) for c in range(channels))


@pytest.mark.parametrize("level", [0.02, 0.1])
def test_the_notice_is_as_loud_as_the_sound(level: float) -> None:
    sound = noise(16_000, level=level)
    spoken = audible_label(sound).samples[: -len(sound.samples) - round(PAUSE * 16_000)]
    assert loudness_db(spoken, 16_000) == pytest.approx(loudness_db(sound.samples, 16_000), abs=0.3)


def test_before_silence_the_notice_is_audible_and_before_full_scale_it_does_not_clip() -> None:
    silence = Sound(np.zeros((8_000, 1), np.float32), 8_000)
    spoken = audible_label(silence).samples[: -8_000 - round(PAUSE * 8_000)]
    assert loudness_db(spoken, 8_000) == pytest.approx(QUIETEST, abs=0.3)
    loud = Sound(np.ones((8_000, 1), np.float32), 8_000)
    assert np.abs(audible_label(loud).samples).max() <= 1


def test_a_mark_is_found_after_the_notice_as_well() -> None:
    labelled = audible_label(mark_sound(noise(8_000), KEY, 77))
    evidence = sound_evidence(labelled, KEY)
    assert evidence.p_value < 1e-8 and evidence.payload == 77


def test_the_recording_is_small_and_its_origin_is_told() -> None:
    assert SPOKEN.stat().st_size < 60_000
    assert "espeak-ng" in SPOKEN.with_name("README.md").read_text()
