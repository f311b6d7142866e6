"""Loudness by its definition; cuts that cover everything and make no click."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.data.audio.waves import (
    fit_length,
    frame_energies,
    join,
    k_weighted,
    loudness_db,
    to_loudness,
    trim_bounds,
    windows,
)


def sine(seconds: float, rate: int, hertz: float = 997.0, level: float = 1.0) -> np.ndarray:
    """(T, 1)."""
    t = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)[:, None]


# --------------------------------------------------------------------------- loudness


def test_the_filters_are_those_of_the_standard_at_48_khz() -> None:
    """ITU-R BS.1770-5, tables 1 and 2, run as written."""
    from scipy.signal import lfilter

    x = np.random.default_rng(0).normal(size=(4_800, 1)).astype(np.float32)
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]
    expected = lfilter(*high_pass, lfilter(*shelf, x.astype(np.float64), axis=0), axis=0)
    assert np.abs(k_weighted(x, 48_000) - expected).max() < 1e-6


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_the_loudness_of_a_sine_of_997_hz_is_that_of_the_standard(rate: int) -> None:
    """-3.01 LKFS at full scale in one channel; each channel adds its power. Off at other rates by the bilinear warp."""
    assert loudness_db(sine(3, rate), rate) == pytest.approx(-3.01, abs=0.05)
    assert loudness_db(sine(3, rate, level=0.1 * math.sqrt(2)), rate) == pytest.approx(-20.0, abs=0.05)
    both = np.repeat(sine(3, rate), 2, axis=1)
    assert loudness_db(both, rate) == pytest.approx(0.0, abs=0.05)


def test_silence_is_gated() -> None:
    """The same tone with three times its length of silence, or of something 40 dB quieter, is as loud."""
    tone = sine(5, 16_000, level=0.3)
    alone = loudness_db(tone, 16_000)
    for quiet in (0 * sine(15, 16_000), 0.01 * sine(15, 16_000, level=0.3)):
        assert loudness_db(np.concatenate([quiet, tone]), 16_000) == pytest.approx(alone, abs=0.3)


def test_low_frequencies_count_little() -> None:
    assert loudness_db(sine(3, 16_000, 20.0), 16_000) < loudness_db(sine(3, 16_000), 16_000) - 10


def test_loudness_of_short_quiet_and_silent_sounds() -> None:
    assert loudness_db(sine(0.2, 16_000), 16_000) == pytest.approx(-3.01, abs=0.2)
    assert loudness_db(sine(3, 16_000, level=1e-5), 16_000) == pytest.approx(-103.0, abs=0.2)  # below the gate
    assert loudness_db(np.zeros((16_000, 1), np.float32), 16_000) == -math.inf
    assert loudness_db(np.zeros((0, 1), np.float32), 16_000) == -math.inf
    assert math.isfinite(loudness_db(sine(1, 1_000, 100.0), 1_000))


def test_to_loudness_reaches_its_target_or_full_scale() -> None:
    x = sine(2, 16_000, level=0.02)
    assert loudness_db(to_loudness(x, 16_000, -23.0), 16_000) == pytest.approx(-23.0, abs=0.01)
    x[100] = 0.5  # a click leaves room for 6 dB
    out = to_loudness(x, 16_000, -5.0)
    assert 0.999 < np.abs(out).max() <= 1.0 and np.allclose(out / out[100], x / x[100], atol=1e-6)
    silence = np.zeros((100, 2), np.float32)
    assert np.array_equal(to_loudness(silence, 16_000, -20.0), silence)


# --------------------------------------------------------------------------- silence


@pytest.mark.parametrize("rate", [1_000, 8_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_trim_bounds_are_exact_to_a_frame(rate: int, channels: int) -> None:
    x = np.zeros((3 * rate, channels), np.float32)
    x[rate : 2 * rate, 0] = sine(1, rate, 100.0, level=0.1)[:, 0]
    x += np.float32(1e-5) * np.random.default_rng(0).normal(size=x.shape)  # 80 dB below
    start, stop = trim_bounds(x, rate, -40.0, 0.0)
    assert 0.98 * rate <= start <= rate and 2 * rate <= stop <= 2.03 * rate
    wide = trim_bounds(x, rate, -40.0, 0.5)
    assert wide == (start - rate // 2, stop + rate // 2)
    assert trim_bounds(np.float32(1e-3) * x, rate, -40.0, 0.0) == (start, stop)  # relative to the loudest
    assert trim_bounds(x, rate, -120.0) == (0, len(x))


def test_sounds_at_the_very_end_are_not_trimmed() -> None:
    x = np.zeros((1_234, 1), np.float32)
    x[-3:] = 0.5
    assert trim_bounds(x, 8_000)[1] == 1_234


def test_silence_and_short_sounds_are_not_trimmed() -> None:
    assert trim_bounds(np.zeros((9_000, 1), np.float32), 8_000) == (0, 9_000)
    assert trim_bounds(np.zeros((0, 1), np.float32), 8_000) == (0, 0)
    assert trim_bounds(sine(0.01, 8_000), 8_000) == (0, 80)


# --------------------------------------------------------------------------- lengths


@given(st.integers(0, 300), st.integers(1, 50), st.data())
def test_windows_cover_everything(frames: int, window: int, data: st.DataObject) -> None:
    found = windows(frames, window, hop := data.draw(st.integers(1, window)))
    assert {i for start, stop in found for i in range(start, stop)} == set(range(frames))
    assert all(stop - start == min(window, frames) for start, stop in found)
    assert [s for s, _ in found[:-1]] == [hop * i for i in range(len(found) - 1)]
    if len(found) > 1:
        assert found[-1][1] == frames and 0 < found[-1][0] - found[-2][0] <= hop


@pytest.mark.parametrize("hop", [0, -1, 11])
def test_an_invalid_hop_is_refused(hop: int) -> None:
    with pytest.raises(ValueError, match="hop"):
        windows(100, 10, hop)


def test_fit_length_changes_only_the_fade() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (1_000, 2)).astype(np.float32)
    assert fit_length(x, 1_000) is x
    longer, shorter = fit_length(x, 1_500), fit_length(x, 500)
    assert longer.shape == (1_500, 2) and shorter.shape == (500, 2)
    assert np.array_equal(longer[: 1_000 - 64], x[: 1_000 - 64]) and not longer[1_000:].any()
    assert np.array_equal(shorter[: 500 - 64], x[: 500 - 64])
    assert fit_length(x[:0], 10).shape == (10, 2)


@pytest.mark.parametrize("frames", [600, 2_000])
def test_fit_length_makes_no_click(frames: int) -> None:
    """A constant: the largest step is that of the fade, pi / 2 over its length, and not the constant."""
    out = fit_length(np.ones((1_000, 1), np.float32), frames)
    assert np.abs(np.diff(np.append(out[:, 0], 0.0))).max() <= math.pi / 2 / 64


def test_frame_energies_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((1003, 2)).astype(np.float32)
    padded = np.concatenate([np.square(x, dtype=np.float64).sum(1), np.zeros(20)])
    whole = [padded[a : a + 20].sum() for a in range(0, 1003 + 1, 10)]
    for piece in (1, 7, 4096):
        monkeypatch.setattr("afresh.data.audio.waves.PIECE", piece)
        assert np.allclose(frame_energies(x, 20, 10), whole, rtol=1e-12, atol=0)


def test_a_new_part_takes_on_what_it_lacks_beside_it_and_lets_go_of_it() -> None:
    """Here it lacks a constant: without a fade there were steps of 0.5 at both ends."""
    given = np.full((1_000, 2), 0.5, np.float32)
    drawn = np.zeros_like(given)
    made = join(given, drawn, 300, 700, 100)
    assert np.array_equal(made[:300], given[:300]) and np.array_equal(made[700:], given[700:])
    assert np.abs(np.diff(made, axis=0)).max() < 0.01 and not made[400:600].any()


def test_a_new_part_that_lacks_nothing_is_as_it_was_drawn() -> None:
    given = np.random.default_rng(0).uniform(-1, 1, (1_000, 1)).astype(np.float32)
    drawn = given.copy()
    drawn[300:] = 0.25
    made = join(np.concatenate([given[:300], np.zeros((700, 1), np.float32)]), drawn, 300, 1_000, 50)
    assert np.array_equal(made, drawn)
