"""Sounds put into others: what is beside stays, and phases meet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from afresh.core import Sound
from afresh.data.audio.mels import levels, mel_for, splice_sound, waves
from afresh.nets.spectrum import multi_scale_distance

RATE = 8_000


def tone(hertz: float) -> Sound:
    t = np.arange(8_192) / RATE
    return Sound((0.4 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)[:, None], RATE)


def far(a: Sound, b: Sound) -> float:
    region = slice(2_700, 5_500)
    x, y = (torch.from_numpy(s.samples[region].T.copy()) for s in (a, b))
    return float(multi_scale_distance(x, y, RATE))


@pytest.mark.parametrize("hertz", [440.0, 1_111.0])
def test_what_is_put_in_meets_what_is_beside(hertz: float) -> None:
    """The same tone with phases of its own: nearer to the tone than where it is put in as it is."""
    known = tone(hertz)
    mel = mel_for(RATE, -100.0)
    wave = waves(mel, levels(mel, torch.from_numpy(known.samples.T.copy())[None]))[0]
    made = Sound(wave.T.numpy(), RATE)
    found = splice_sound(known, made, 3_500, 4_700).samples
    assert np.array_equal(found[:3_500], known.samples[:3_500]) and np.array_equal(found[4_700:], known.samples[4_700:])
    plain = known.samples.copy()
    plain[3_500:4_700] = made.samples[3_500:4_700]
    assert math.isfinite(far(known, made)) and far(known, Sound(found, RATE)) < 0.6 * far(known, Sound(plain, RATE))


def test_what_fits_already_is_put_in_as_it_is() -> None:
    known = tone(440.0)
    samples = known.samples.copy()
    samples[3_500:4_700] = np.random.default_rng(0).uniform(-0.5, 0.5, (1_200, 1))
    assert np.array_equal(splice_sound(known, Sound(samples, RATE), 3_500, 4_700).samples, samples)
