"""Parts of sounds spliced into others: neighbouring samples do not change, and phases join."""

from __future__ import annotations

import numpy as np
import torch

from afresh.core import Sound
from afresh.data.audio.mels import mel_for, spectrograms, splice_sound, waveforms
from tests.spectral_distance import multi_scale_distance

RATE = 8_000


def tone(hertz: float) -> Sound:
    t = np.arange(8_192) / RATE
    return Sound((0.4 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)[:, None], RATE)


def far(a: Sound, b: Sound) -> float:
    region = slice(2_700, 5_500)
    x, y = (torch.from_numpy(s.samples[region].T.copy()) for s in (a, b))
    return float(multi_scale_distance(x, y, RATE))


def test_spliced_parts_join_their_neighbours() -> None:
    """Parts of the same tones with other phases are closer to the tones than if they were copied; of some tones the
    phase of a copy is right by chance."""
    joined, copied = [], []
    for hertz in (330.0, 440.0, 554.0, 660.0, 880.0, 1_111.0):
        known = tone(hertz)
        mel = mel_for(RATE, -100.0)
        wave = waveforms(mel, spectrograms(mel, torch.from_numpy(known.samples.T.copy())[None]))[0]
        made = Sound(wave.T.numpy(), RATE)
        found = splice_sound(known, made, 3_500, 4_700).samples
        assert np.array_equal(found[:3_500], known.samples[:3_500])
        assert np.array_equal(found[4_700:], known.samples[4_700:])
        plain = known.samples.copy()
        plain[3_500:4_700] = made.samples[3_500:4_700]
        joined.append(far(known, Sound(found, RATE)))
        copied.append(far(known, Sound(plain, RATE)))
    assert np.isfinite(joined).all() and np.median(joined) < 0.4 * np.median(copied)


def test_parts_that_already_join_are_copied() -> None:
    known = tone(440.0)
    samples = known.samples.copy()
    samples[3_500:4_700] = np.random.default_rng(0).uniform(-0.5, 0.5, (1_200, 1))
    assert np.array_equal(splice_sound(known, Sound(samples, RATE), 3_500, 4_700).samples, samples)
