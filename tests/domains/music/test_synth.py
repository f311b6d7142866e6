"""What is heard of a score: the right frequencies, nothing above the band, no clicks, one level, fast."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.music.score import MusicScore, Note
from afresh.domains.music.synth import BAND, RELEASE, Tone, frequency, play, synthesise, tones


def spectrum(samples: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in hertz, and magnitudes through a Hann window."""
    x = samples[:, 0].astype(np.float64)
    return np.fft.rfftfreq(len(x), 1 / rate), np.abs(np.fft.rfft(x * np.hanning(len(x))))


@pytest.mark.parametrize(("pitch", "hertz"), [(69, 440.0), (57, 220.0), (60, 261.6256), (81, 880.0)])
def test_a_pitch_sounds_at_its_frequency(pitch: int, hertz: float) -> None:
    assert frequency(pitch) == pytest.approx(hertz, rel=1e-5)
    sound = synthesise([Tone(0, 2.0, pitch)])
    f, m = spectrum(sound.samples, sound.rate)
    assert f[m.argmax()] == pytest.approx(hertz, abs=f[1])  # a bin


def test_partials_lie_at_multiples_and_none_above_the_band() -> None:
    sound = synthesise([Tone(0, 1.0, 69)])
    f, m = spectrum(sound.samples, sound.rate)
    near = np.abs(f / 440 - np.round(f / 440)) * 440 < 40
    assert (m[near] ** 2).sum() > 0.999 * (m**2).sum()
    high = synthesise([Tone(0, 1.0, 110)], rate=16_000)  # 4,699 Hz: only its lowest partial is below the band
    f, m = spectrum(high.samples, 16_000)
    assert f[m.argmax()] == pytest.approx(frequency(110), abs=2)
    aliased = np.abs(f - (16_000 - 2 * frequency(110))) < 100  # where the second would fold to
    assert m[aliased].max() < 1e-3 * m.max() and (m[f > BAND * 16_000] < 1e-3 * m.max()).all()


def test_a_pitch_above_the_band_is_silence() -> None:
    assert not synthesise([Tone(0, 0.1, 127)], rate=8_000).samples.any()


def test_notes_begin_and_end_without_a_click() -> None:
    """No step between neighbours is larger than the steepest slope that the partials can have together."""
    sound = synthesise([Tone(0, 0.3, 60), Tone(0.3, 0.001, 60), Tone(0.35, 0.3, 64)])
    x = sound.samples[:, 0]
    assert x[0] == 0 and abs(x[-1]) < 1e-3
    steps = np.abs(np.diff(x))
    inside = steps[: int(0.25 * sound.rate)].max()
    assert steps.max() < 1.5 * inside


def test_the_peak_does_not_depend_on_the_number_of_notes() -> None:
    for count in (1, 4, 16):
        sound = synthesise([Tone(0, 0.5, 48 + 2 * i) for i in range(count)])
        assert np.abs(sound.samples).max() == pytest.approx(0.9, abs=1e-4)
        assert sound.samples.dtype == np.float32 and sound.samples.shape[1] == 1


def test_a_higher_velocity_is_louder() -> None:
    sound = synthesise([Tone(0, 0.2, 60, velocity=40), Tone(1, 0.2, 60, velocity=120)])
    soft, loud = sound.samples[: sound.rate // 2], sound.samples[sound.rate :]
    assert np.abs(loud).max() == pytest.approx(9 * np.abs(soft).max(), rel=0.01)


def test_notes_sound_at_the_times_of_the_score() -> None:
    score = MusicScore((Note(0, 0, 60, 12), Note(24, 1, 67, 12)), tempo=60)
    assert [(t.start, t.seconds, t.pitch) for t in tones(score)] == [(0.0, 1.0, 60), (2.0, 1.0, 67)]
    sound = play(score)
    assert sound.seconds == pytest.approx(3.0 + RELEASE, abs=0.01)
    quiet = sound.samples[int(1.2 * sound.rate) : int(1.9 * sound.rate)]
    assert not quiet.any()


def test_rendering_is_ten_times_faster_than_real_time() -> None:
    notes = tuple(Note(3 * i, v, 36 + (7 * i + 13 * v) % 48, 3 + i % 9) for i in range(240) for v in range(4))
    start = time.process_time()
    sound = play(MusicScore(notes))
    assert sound.seconds / (time.process_time() - start) > 10


def test_scores_that_cannot_be_rendered_are_refused() -> None:
    with pytest.raises(UserError, match="no note"):
        synthesise([])
    with pytest.raises(UserError, match="minutes"):
        synthesise([Tone(0, 4_000, 60)])
    with pytest.raises(UserError, match="samples per second"):
        synthesise([Tone(0, 1, 60)], rate=10)


def test_nothing_is_kept_of_a_score_that_was_played() -> None:
    tracemalloc.start()
    try:
        for pitch in range(60, 70):
            synthesise([Tone(0, 5.0, pitch), Tone(5.0, 5.0, pitch)])
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
