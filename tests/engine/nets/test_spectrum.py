"""Spectra against closed forms: the bin and level of a sine, Parseval, exact inverses, inversion of spectrograms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afresh.engine.nets.spectrum import (
    Mel,
    first_phase,
    griffin_lim,
    hann,
    log_mel,
    mel_filters,
    mel_of,
    stft,
    to_hertz,
    to_magnitude,
    to_mel,
    to_sound,
    waveform,
)
from tests.spectral_distance import multi_scale_distance

SMALL_MEL = Mel(8000, 256, 64, 40)
FRAMINGS = [(256, 64), (256, 128), (384, 128), (512, 80), (320, 80), (250, 61)]
every_framing = pytest.mark.parametrize("window,hop", FRAMINGS, ids=str)


def noise(*shape: int, scale: float = 0.1, seed: int = 0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sine(hertz: float, length: int, rate: int = 8000, level: float = 1.0) -> Tensor:
    """A sine, (1, length)."""
    return level * torch.sin(2 * math.pi * hertz / rate * torch.arange(length, dtype=torch.float64)).float()[None]


def voice(length: int = 4096, rate: int = 8000) -> Tensor:
    """Harmonics of a gliding pitch with rising loudness, (1, length), structured like speech."""
    t = torch.arange(length, dtype=torch.float64) / rate
    phase = 2 * math.pi * (120 * t + 40 * t**2)
    tones = sum(torch.sin(k * phase) / k for k in range(1, 20))
    return (0.2 * torch.as_tensor(tones) * torch.sin(math.pi * t * rate / length) ** 2).float()[None]


# --------------------------------------------------------------------------- the transform


def test_a_sine_has_its_bin_and_its_level() -> None:
    """With amplitude a at the centre of bin k: magnitude a there, a / 2 beside it, 0 elsewhere (Hann's main lobe)."""
    for k, level in ((10, 1.0), (40, 0.25)):
        magnitude = stft(sine(k * 8000 / 256, 2048, level=level), 256, 64).abs()[0, :, 8:-8]
        want = torch.zeros(129)
        want[k - 1 : k + 2] = level * torch.tensor([0.5, 1.0, 0.5])
        assert torch.allclose(magnitude, want[:, None].expand_as(magnitude), atol=1e-5)


def test_energy_is_preserved() -> None:
    """Parseval: the energy of each windowed frame is that of its two-sided spectrum."""
    x = noise(2, 640)
    spectrum = stft(x, 256, 64).abs().square()
    both = spectrum.sum(1) + spectrum[:, 1:-1].sum(1)  # the bins between 0 and the middle stand for two
    padded = torch.nn.functional.pad(x, (96, 96))
    frames = (padded.unfold(1, 256, 64) * hann(256)).square().sum(2)
    assert torch.allclose(both / 256, frames, rtol=1e-4)


@every_framing
def test_the_inverse_is_exact_up_to_the_ends(window: int, hop: int) -> None:
    for frames in (1, 2, 7, 30):
        x = noise(2, frames * hop)
        spectrum = stft(x, window, hop)
        assert spectrum.shape == (2, window // 2 + 1, frames)
        back = waveform(spectrum, window, hop)
        assert back.shape == x.shape
        assert torch.allclose(back, x, atol=2e-5)


def test_the_inverse_is_the_nearest_sound() -> None:
    """Least squares: the residual of a spectrum that no sound has is orthogonal to the spectra of all sounds."""
    spectrum = torch.complex(noise(1, 129, 9), noise(1, 129, 9, seed=1))
    spectrum[:, [0, -1]] = spectrum[:, [0, -1]].real.to(spectrum.dtype)
    rest = spectrum - stft(waveform(spectrum, 256, 64), 256, 64)
    other = stft(noise(1, 9 * 64, seed=2), 256, 64)
    twice = torch.full((129, 1), 2.0)
    twice[[0, -1]] = 1.0
    inner = (twice * (rest * other.conj()).real).sum()
    assert abs(inner) < 1e-5 * (twice * rest.abs() * other.abs()).sum()


def test_any_length_has_the_frames_that_cover_it() -> None:
    x = noise(1, 1000)
    spectrum = stft(x, 256, 64)
    assert spectrum.shape[2] == 16
    assert torch.allclose(waveform(spectrum, 256, 64)[:, :1000], x, atol=1e-5)
    with pytest.raises(ValueError, match="at least one sample"):
        stft(x[:, :0], 256, 64)


# --------------------------------------------------------------------------- mels


def test_slaneys_scale() -> None:
    """Its anchors (15 mels at 1 kHz, 42 at 6.4 kHz), and its inverse."""
    assert to_mel(torch.tensor([0.0, 500.0, 1000.0, 6400.0])).tolist() == pytest.approx([0, 7.5, 15, 42], abs=1e-5)
    hertz = torch.linspace(0, 20000, 301, dtype=torch.float64)
    assert torch.allclose(to_hertz(to_mel(hertz)), hertz, rtol=1e-9)


@pytest.mark.parametrize(
    "mel", [SMALL_MEL, Mel(8000, 256, 64, 80), Mel(44100, 2048, 512, 128, low=30, high=16000)], ids=str
)
def test_filters_sum_to_one_in_every_bin(mel: Mel) -> None:
    filters = mel_filters(mel)
    assert filters.shape == (mel.mels, mel.window // 2 + 1)
    assert filters.min() >= 0 and filters.sum(1).min() > 0  # no band is empty
    ends = to_mel(torch.tensor([mel.low, mel.top], dtype=torch.float64))
    corners = to_hertz(torch.linspace(float(ends[0]), float(ends[1]), mel.mels + 2, dtype=torch.float64))
    width = mel.rate / mel.window
    middles = torch.arange(filters.shape[1]) * width
    shared = (middles - width / 2 >= corners[1]) & (middles + width / 2 <= corners[-2])
    assert shared.sum() > 0.5 * len(shared)
    assert torch.allclose(filters.sum(0)[shared], torch.ones(int(shared.sum())), atol=1e-5)
    outside = (middles + width / 2 < mel.low) | (middles - width / 2 > mel.top)
    assert not filters[:, outside].any()
    areas = width * filters.sum(1).double()  # of triangles of unit peak; the lowest may lose what lies below 0 Hz
    assert torch.allclose(areas[1:-1], ((corners[2:] - corners[:-2]) / 2)[1:-1], rtol=1e-4)


def test_a_louder_sound_is_a_constant_higher() -> None:
    x = noise(2, 1024, scale=0.05)
    assert torch.allclose(log_mel(4 * x, SMALL_MEL), log_mel(x, SMALL_MEL) + 20 * math.log10(4), atol=1e-3)


def test_a_sine_of_amplitude_1_has_its_level() -> None:
    """Its bands together have the power 1 + 1/4 + 1/4 of the three bins of a Hann window."""
    y = log_mel(sine(64 * 8000 / 256, 2048), SMALL_MEL)
    assert y.shape == (1, 40, 32)
    total = 10 * torch.log10(torch.pow(10, y[0, :, 8:-8] / 10).sum(0))
    assert torch.allclose(total, torch.tensor(10 * math.log10(1.5)), atol=0.01)


def test_nothing_is_below_the_floor() -> None:
    y = log_mel(torch.cat([noise(1, 512), torch.zeros(1, 512)], 1), SMALL_MEL)
    assert y.min() == SMALL_MEL.floor and torch.all(y[..., -2:] == SMALL_MEL.floor)


@pytest.mark.parametrize(
    "numbers",
    [
        {"window": 64},
        {"window": 255},
        {"hop": 0},
        {"rate": 0},
        {"mels": 0},
        {"high": 5000.0},
        {"low": 4000.0},
        {"floor": 0.0},
    ],
    ids=str,
)
def test_contradictory_parameters_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must (be|hold)"):
        Mel(**({"rate": 8000, "window": 256, "hop": 64, "mels": 40} | numbers))  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
@pytest.mark.parametrize("fine", [False, True])
def test_every_sampling_rate_has_a_spectrogram(rate: int, fine: bool) -> None:
    """The length of the window in seconds and the width of a band in mels are the same for every rate, up to
    rounding."""
    mel = mel_of(rate, fine)
    assert mel.window / rate == pytest.approx(0.032, rel=0.1)
    assert mel.window == mel.hop * (4 if fine else 2)
    width = float(to_mel(torch.tensor(rate / 2))) / mel.mels
    assert width == pytest.approx(7 / 8 / 1.6, rel=0.12)
    x = noise(1, rate // 4)
    assert torch.isfinite(to_sound(log_mel(x, mel), mel, steps=1)).all()


# --------------------------------------------------------------------------- the way back


def test_a_magnitude_has_the_mels_it_was_made_from() -> None:
    y = log_mel(voice(), SMALL_MEL)
    magnitude = to_magnitude(y, SMALL_MEL)
    assert magnitude.shape == (1, 129, 64) and magnitude.min() >= 0
    again = 10 * torch.log10((mel_filters(SMALL_MEL) @ magnitude.square()).clamp_min(1e-8))
    loud = y > -60
    assert (again - y)[loud].abs().mean() < 0.1  # dB


def test_the_magnitude_is_more_accurate_than_by_the_pseudo_inverse() -> None:
    x = voice()
    truth = stft(x, 256, 64).abs()
    y = log_mel(x, SMALL_MEL)
    plain = (torch.linalg.pinv(mel_filters(SMALL_MEL)) @ torch.pow(10, y / 10)).clamp_min(0).sqrt()
    ours = to_magnitude(y, SMALL_MEL)
    assert (ours - truth).norm() < 0.9 * (plain - truth).norm()


def test_bins_outside_the_bands_are_silent() -> None:
    mel = Mel(8000, 256, 64, 20, low=500, high=2000)
    magnitude = to_magnitude(log_mel(noise(1, 2048), mel), mel)
    assert magnitude.isfinite().all()
    heard = magnitude[0].amax(1) > 0  # bins are 31.25 Hz wide: 500 Hz is the middle of bin 16, 2000 Hz that of bin 64
    assert heard[16:65].all() and not heard[:16].any() and not heard[65:].any()


def test_with_the_true_phase_the_sound_is_exact() -> None:
    x = voice()
    spectrum = stft(x, 256, 64)
    assert torch.allclose(waveform(torch.polar(spectrum.abs(), spectrum.angle()), 256, 64), x, atol=1e-5)


def inconsistency(x: Tensor, magnitude: Tensor) -> float:
    """The relative error of the sound's magnitude."""
    return float((stft(x, 256, 64).abs() - magnitude).norm() / magnitude.norm())


def test_more_steps_reduce_the_error() -> None:
    magnitude = stft(voice(), 256, 64).abs()
    left = [inconsistency(griffin_lim(magnitude, 256, 64, steps), magnitude) for steps in (0, 4, 16, 64)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.3 * left[0]


def test_momentum_helps() -> None:
    magnitude = stft(voice(), 256, 64).abs()
    fast, plain = (inconsistency(griffin_lim(magnitude, 256, 64, 32, m), magnitude) for m in (0.99, 0.0))
    assert fast < plain


def test_the_first_phase_of_a_sine_runs_at_its_frequency() -> None:
    """Also between bins: 1010 Hz is a third of the way from bin 32 to 33. In radians per frame, to 1% of a bin."""
    magnitude = stft(sine(1010, 4096), 256, 64).abs()
    advance = first_phase(magnitude, 256, 64)[0, 32].diff()[8:-8]
    want = 2 * math.pi * 1010 * 64 / 8000
    off = torch.remainder(advance - want + math.pi, 2 * math.pi) - math.pi
    assert off.abs().max() < 0.1 * 2 * math.pi * 64 / 256


@every_framing
def test_lengths_are_exact(window: int, hop: int) -> None:
    mel = Mel(8000, window, hop, 24)
    for frames in (1, 3, 20):
        sound = to_sound(log_mel(noise(2, frames * hop), mel), mel, steps=2)
        assert sound.shape == (2, frames * hop) and sound.isfinite().all()


def test_a_spectrogram_is_inverted_to_its_sound() -> None:
    """The result is much closer than noise of the same length and loudness, and has the spectrogram."""
    x = voice()
    y = log_mel(x, SMALL_MEL)
    back = to_sound(y, SMALL_MEL)
    other = noise(*x.shape, scale=float(x.std()))
    assert multi_scale_distance(back, x, 8000) < 0.5 * multi_scale_distance(other, x, 8000)
    loud = y > -40
    assert (log_mel(back, SMALL_MEL) - y)[loud].abs().mean() < 2.0  # dB


def test_no_click_at_the_ends() -> None:
    """A steady tone that is cut in the middle of a period is inverted without peaks at its ends."""
    back = to_sound(log_mel(sine(1000, 4096, level=0.5), SMALL_MEL), SMALL_MEL)
    middle = back[:, 1024:3072].abs().max()
    assert back[:, :128].abs().max() < 1.5 * middle and back[:, -128:].abs().max() < 1.5 * middle


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("tonal", [False, True])
def test_no_click_where_a_sound_begins_loud(fine: bool, tonal: bool) -> None:
    """Drums that decay from their first sample keep their crest factor, and so do spectra without detail, as a small
    model draws them. With one first phase for all bins it rises from 23 to 56 and 60."""
    rate = 22_050
    mel = mel_of(rate, fine)
    t = torch.arange(40 * mel.hop) / rate
    sound = noise(8, len(t), scale=0.06 if tonal else 0.3) * torch.exp(-40 * t)
    sound = sound + sine(180, len(t), rate, level=0.5) * torch.exp(-12 * t) * tonal
    levels = log_mel(sound, mel)
    back = to_sound(torch.cat([levels, levels.mean(0, keepdim=True)]), mel)
    real, made = (x.abs().amax(1) / x.square().mean(1).sqrt() for x in (sound, back))
    assert made.max() < 1.25 * real.max()


def test_inversion_is_deterministic_and_independent_of_the_batch() -> None:
    y = log_mel(torch.cat([voice(1024), noise(1, 1024)]), SMALL_MEL)
    both = to_sound(y, SMALL_MEL)
    assert torch.equal(both, to_sound(y, SMALL_MEL))
    alone = to_sound(y[1:], SMALL_MEL)
    assert (alone - both[1:]).norm() < 0.02 * alone.norm()  # products of another shape round otherwise


def test_silence_stays_silence() -> None:
    for length in (64, 1024):
        y = log_mel(torch.zeros(2, length), SMALL_MEL)
        assert torch.all(y == SMALL_MEL.floor)
        assert torch.equal(to_sound(y, SMALL_MEL), torch.zeros(2, length))
    assert torch.equal(to_sound(torch.full((1, 40, 5), -200.0), SMALL_MEL), torch.zeros(1, 320))
    assert multi_scale_distance(torch.zeros(1, 999), torch.zeros(1, 999), 8000) == 0


def test_a_loud_sound_beside_silence_leaves_it_alone() -> None:
    x = torch.cat([voice(1024), torch.zeros(1, 1024)])
    assert torch.equal(to_sound(log_mel(x, SMALL_MEL), SMALL_MEL)[1], torch.zeros(1024))


# --------------------------------------------------------------------------- distance and gradients


def test_distance_of_a_scaled_sound() -> None:
    """In closed form: for x / 2 and x the convergence is 1/2, and log magnitudes differ by log 2 in every window."""
    x = noise(3, 4096, scale=0.3)
    want = torch.full((3,), 0.5 + math.log(2))
    assert torch.allclose(multi_scale_distance(x / 2, x, 8000), want, atol=0.01)
    assert torch.all(multi_scale_distance(x, x, 8000) == 0)
    with pytest.raises(ValueError, match="must be equal"):
        multi_scale_distance(x, x[:, 1:], 8000)


def test_distance_grows_with_noise() -> None:
    x = voice()
    apart = [float(multi_scale_distance(x + noise(*x.shape, scale=s), x, 8000)) for s in (1e-4, 1e-3, 1e-2, 1e-1)]
    assert apart == sorted(apart) and apart[0] > 0


def test_gradients_are_finite_and_right() -> None:
    """Also for silent sounds; and along a direction they equal the difference quotient."""
    for x in (noise(1, 512), torch.zeros(1, 512), torch.cat([noise(1, 256), torch.zeros(1, 256)], 1)):
        x.requires_grad_()
        target = voice(512)
        loss = multi_scale_distance(x, target, 8000).sum() + log_mel(x, SMALL_MEL).mean() / 100
        (slope,) = torch.autograd.grad(loss, x)
        assert slope.isfinite().all()
    x, way = noise(1, 512).requires_grad_(), noise(1, 512, scale=1.0, seed=1)
    (slope,) = torch.autograd.grad(log_mel(x, SMALL_MEL).mean(), x)
    with torch.no_grad():
        ahead, behind = (log_mel(x + s * way, SMALL_MEL).mean() for s in (1e-4, -1e-4))
    assert float((slope * way).sum()) == pytest.approx(float(ahead - behind) / 2e-4, rel=0.02)
