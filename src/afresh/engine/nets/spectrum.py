"""Spectra of audio: waveforms to log-mel spectrograms and back.

Waveforms are x (B, T), float32 in [-1, 1]; spectra are (B, window // 2 + 1, frames). T samples have exactly ceil(T /
hop) frames, whose centres are `hop` samples apart, the first `hop` / 2 after the beginning. A waveform is padded with
zeros instead of its reflection: the transform is then linear, and `waveform` is its exact least-squares inverse up to
both ends, without clicks. Windows are periodic Hann windows, scaled so that a sine of amplitude 1 has magnitude 1:
levels in dB are relative to such a sine. All functions are deterministic; `stft`, `waveform` and
`log_mel` are differentiable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core.rng import Rng

SMALL = 1e-12  # below any magnitude of a float32 waveform in [-1, 1]
KNEE_HZ, KNEE_MEL, STEP = 1000.0, 15.0, math.log(6.4) / 27  # constants of Slaney's mel scale
GAMMA = 0.25645  # the Gaussian nearest to a Hann window has gamma = GAMMA * window^2
BALANCE_STEPS = 30  # with 10 steps the error is 7% larger, with 100 it is 3% smaller (docs/development/log.md)
WINDOW = 0.032  # length of the window, seconds
SCALES = (0.016, 0.032, 0.064, 0.128)  # windows of spectral distances, seconds


@dataclass(frozen=True)
class Mel:
    """Parameters of a log-mel spectrogram. Raises ValueError if they contradict one another.

    `rate` in samples a second; `window` and `hop` in samples; `mels` bands between `low` and `high` hertz (0: half the
    rate); `floor`, in dB, at which levels are clamped.
    """

    rate: int
    window: int
    hop: int
    mels: int
    low: float = 0.0
    high: float = 0.0
    floor: float = -80.0

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.window >= 2 * self.hop > 0 and self.window % 2 == 0 and self.mels > 0):
            raise ValueError(f"rate and mels must be positive, and window even and at least two hops, not {self}")
        if not (0 <= self.low < self.top <= self.rate / 2 and self.floor < 0):
            raise ValueError(f"0 <= low < high <= rate / 2 and floor < 0 must hold, not {self}")

    @property
    def top(self) -> float:
        """The highest frequency, in hertz."""
        return self.high or self.rate / 2

    @property
    def bins(self) -> int:
        """The number of frequencies of the spectrum."""
        return self.window // 2 + 1


def mel_of(rate: int, fine: bool = False) -> Mel:
    """The default spectrogram for a sampling rate: windows of 32 ms that overlap by half, and 64 mels at 8 kHz.

    The number of mels grows with the range of the mel scale below half the rate (4,000 values a second at 8 kHz, 7,000
    at 44.1 kHz). With `fine`, windows overlap by three quarters, which doubles the number of values. A classifier
    recognised as many spoken digits after a round trip through the coarse spectrogram as before, even with 40 mels; but
    40 mels change the voice (docs/development/log.md).
    """
    window = 64 * max(1, round(WINDOW * rate / 64))
    span = float(to_mel(torch.tensor(rate / 2)))
    return Mel(rate, window, window // (4 if fine else 2), 8 * max(1, round(span * 1.6 / 7)))


# --------------------------------------------------------------------------- the transform and its inverse


@lru_cache(maxsize=32)
def hann(window: int) -> Tensor:
    """A Hann window (window,) with sum 2, so that a sine of amplitude 1 has magnitude 1."""
    w = torch.hann_window(window, dtype=torch.float64)
    return (w * (2 / w.sum())).float()


def stft(x: Tensor, window: int, hop: int) -> Tensor:
    """The complex spectrum (B, window // 2 + 1, ceil(T / hop)) of x (B, T). Raises ValueError if T is 0."""
    if x.dim() != 2 or not x.shape[1]:
        raise ValueError(f"x must have shape (B, T) with at least one sample, not {tuple(x.shape)}")
    before = (window - hop) // 2
    after = window - hop - before + -x.shape[1] % hop
    padded = F.pad(x, (before, after))
    return torch.stft(padded, window, hop, window=hann(window).to(x.device), center=False, return_complex=True)


def overlapped(frames: Tensor, hop: int) -> Tensor:
    """Overlap-add of frames (B, window, n), (B, (n - 1) hop + window)."""
    window, n = frames.shape[1:]
    pieces = -(-window // hop)  # of one hop each: six times as fast as torch's fold
    cut = F.pad(frames.transpose(1, 2), (0, pieces * hop - window)).reshape(len(frames), n, pieces, hop)
    total = frames.new_zeros(len(frames), n + pieces - 1, hop)
    for i in range(pieces):
        total[:, i : i + n] += cut[:, :, i]
    return total.flatten(1)[:, : (n - 1) * hop + window]


@lru_cache(maxsize=32)
def overlap(window: int, hop: int, n: int) -> Tensor:
    """The sum of the squared windows of n frames at each sample, ((n - 1) hop + window,); positive inside the sound."""
    return overlapped(hann(window).square()[None, :, None].expand(1, window, n), hop)[0].clamp_min(SMALL)


def waveform(spectrum: Tensor, window: int, hop: int) -> Tensor:
    """The waveform (B, frames * hop) whose `stft` is nearest to the spectrum (Griffin and Lim 1984, eq. 6).

    This is the inverse of `stft` for a spectrum that `stft` returned.
    """
    frames = torch.fft.irfft(spectrum, n=window, dim=1) * hann(window).to(spectrum.device)[:, None]
    n = frames.shape[2]
    sound = overlapped(frames, hop) / overlap(window, hop, n).to(frames.device)
    before = (window - hop) // 2
    return sound[:, before : before + n * hop]


# --------------------------------------------------------------------------- mels


def to_mel(hertz: Tensor) -> Tensor:
    """Slaney's scale (1998, "Auditory Toolbox"): 66.7 Hz a mel below 1 kHz, then 27 mels for each factor of 6.4."""
    above = KNEE_MEL + torch.log(hertz.clamp_min(KNEE_HZ) / KNEE_HZ) / STEP
    return torch.where(hertz < KNEE_HZ, hertz * (KNEE_MEL / KNEE_HZ), above)


def to_hertz(mel: Tensor) -> Tensor:
    """The inverse of `to_mel`."""
    return torch.where(mel < KNEE_MEL, mel * (KNEE_HZ / KNEE_MEL), KNEE_HZ * torch.exp(STEP * (mel - KNEE_MEL)))


@lru_cache(maxsize=32)
def mel_filters(mel: Mel) -> Tensor:
    """Weights (mels, bins) of the power of each bin in each band.

    The filters are triangles of height 1, evenly spaced on Slaney's scale. They sum to 1 between the centres of the
    first and the last, so that the bands partition the power of the sound; the width of high bands compensates for the
    lower power of most sounds at high frequencies. Slaney's scale is used because the lowest bands of HTK's scale are
    narrower than a bin. The weight of a bin is the mean of the triangle over the width of the bin, instead of its value
    at the centre, so that no band is empty, however narrow it is.
    """
    ends = to_mel(torch.tensor([mel.low, mel.top], dtype=torch.float64))
    corners = to_hertz(torch.linspace(float(ends[0]), float(ends[1]), mel.mels + 2, dtype=torch.float64))
    a, b, c = (corners[i : mel.mels + i, None] for i in range(3))
    width = mel.rate / mel.window
    edges = ((torch.arange(mel.bins + 1, dtype=torch.float64) - 0.5) * width)[None]
    rising = (edges.clamp(a, b) - a).square() / (2 * (b - a))
    falling = ((c - b).square() - (c - edges.clamp(b, c)).square()) / (2 * (c - b))
    return ((rising + falling).diff(dim=1) / width).float()


def log_mel(x: Tensor, mel: Mel) -> Tensor:
    """The power of x (B, T) in each band, (B, mels, ceil(T / hop)), in dB, from `floor` to about 2.

    A sine of amplitude 1 has 10 log10(1.5) dB in total in the bands around it, since a Hann window spreads it over
    three bins.
    """
    power = stft(x, mel.window, mel.hop).abs().square()
    bands = mel_filters(mel).to(x.device) @ power
    return 10 * torch.log10(bands.clamp_min(10 ** (mel.floor / 10)))


def to_magnitude(y: Tensor, mel: Mel) -> Tensor:
    """A magnitude (B, bins, frames) with the log-mel spectrogram y (B, mels, frames) in dB; exactly 0 at the floor.

    Of all powers P >= 0 with filters P = bands, this is the smooth one to which the multiplicative updates of Lee and
    Seung (2001, theorem 2) converge from a uniform start. Their divergence weighs quiet and loud bands alike, as
    hearing does. Least squares (the pseudo-inverse clamped at 0, or 100 accelerated projected steps) end further from
    the true magnitude.
    """
    filters = mel_filters(mel).to(y.device)
    bands = (torch.pow(10, y / 10) - 10 ** (mel.floor / 10)).clamp_min(0)
    share = filters.sum(0)[:, None]
    share = torch.where(share > 0, 1 / share.clamp_min(SMALL), 0)  # 0 for bins outside all bands
    power = filters.T @ (bands / filters.sum(1)[:, None])
    for _ in range(BALANCE_STEPS):
        power = power * share * (filters.T @ (bands / (filters @ power).clamp_min(SMALL**2)))
    return power.sqrt()


# --------------------------------------------------------------------------- phases


def first_phase(magnitude: Tensor, window: int, hop: int) -> Tensor:
    """An initial phase (B, bins, frames), float32, that advances in time at the frequency estimated from the magnitude.

    With a Gaussian window the derivative of the phase in time is the frequency of the bin plus the derivative of the
    log magnitude in frequency, divided by gamma (Prusa et al. 2017, sec. III; GAMMA is their value for a Hann window).
    It is integrated along time only, which needs no heap as theirs does; `griffin_lim` improves the result.

    Each bin starts at a random phase, the same in every call. If all bins started at the same phase, a sound that is
    loud in its first frame would keep an impulse at the centre of that frame, up to nine times as high as the rest.
    """
    loudest = magnitude.amax((1, 2), keepdim=True)
    log = torch.log(torch.maximum(magnitude, loudest * 1e-4).clamp_min(SMALL))
    slope = F.pad((log[:, 2:] - log[:, :-2]) / 2, (0, 0, 1, 1))
    bins = torch.arange(magnitude.shape[1], device=magnitude.device)
    own = bins[:, None] * (2 * math.pi * hop / window)
    advance = (own + slope * (hop / (GAMMA * window))).double()  # radians per frame
    steps = (advance + advance.roll(1, 2)) / 2
    first = Rng(0).uniform("first phase", bins).double() * (2 * math.pi)
    return torch.remainder(steps.cumsum(2) + first[:, None], 2 * math.pi).float()


@torch.no_grad()
def griffin_lim(magnitude: Tensor, window: int, hop: int, steps: int = 32, momentum: float = 0.99) -> Tensor:
    """A waveform (B, frames * hop) whose spectrum has approximately the magnitude (B, bins, frames).

    The fast algorithm of Perraudin et al. (2013, algorithm 2), started from `first_phase`. Raises ValueError if `steps`
    is negative.
    """
    if steps < 0:
        raise ValueError(f"steps must not be negative, not {steps}")
    spectrum = torch.polar(magnitude, first_phase(magnitude, window, hop))
    before: Tensor | None = None
    for _ in range(steps):
        now = stft(waveform(spectrum, window, hop), window, hop)
        ahead = now if before is None else torch.lerp(before, now, 1 + momentum)
        before = now
        spectrum = ahead * (magnitude / ahead.abs().clamp_min(SMALL))
    return waveform(spectrum, window, hop)


def to_sound(y: Tensor, mel: Mel, steps: int = 32) -> Tensor:
    """A waveform (B, frames * hop) for the log-mel spectrogram y (B, mels, frames) in dB. Without gradients."""
    with torch.no_grad():
        return griffin_lim(to_magnitude(y, mel), mel.window, mel.hop, steps)


def windows_of(rate: int) -> tuple[int, ...]:
    """SCALES in samples, rounded to powers of two."""
    return tuple(2 ** max(3, round(math.log2(rate * s))) for s in SCALES)
