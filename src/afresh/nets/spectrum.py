"""Spectra of sound: waveforms to log-mel pictures and back, and a distance of sounds over several windows.

Waveforms are x (B, T), float32 in [-1, 1]; spectra are (B, window // 2 + 1, frames), and T samples have exactly
ceil(T / hop) frames, whose middles lie hop apart, the first hop / 2 after the beginning. Outside the sound there is
silence, not its reflection: the transform is then linear, and `waveform` is its exact least-squares inverse up to both
ends, without clicks. Windows are periodic Hann windows, scaled so that a sine of amplitude 1 has magnitude 1: levels in
dB are relative to such a sine. Everything is a pure function without random numbers; gradients flow through `stft`,
`waveform`, `log_mel` and `multi_scale_distance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 1e-12  # of a magnitude: nothing that a float32 sound in [-1, 1] holds is so quiet
KNEE_HZ, KNEE_MEL, STEP = 1000.0, 15.0, math.log(6.4) / 27  # of Slaney's scale
GAMMA = 0.25645  # a Hann window is nearest to a Gaussian whose gamma is this times the window's length squared
BALANCE_STEPS = 30  # 10 leave a spectrum 7% further from the true one; 100 are 3% nearer (docs/log.md)
WINDOW = 0.032  # seconds
SCALES = (0.016, 0.032, 0.064, 0.128)  # seconds of the windows of the distance
QUIETEST = 1e-5  # magnitudes below -100 dB are all the same to the distance


@dataclass(frozen=True)
class Mel:
    """How a log-mel picture is made. Raises ValueError for numbers that do not go together.

    `rate` in samples a second, `window` and `hop` in samples, `mels` bands between `low` and `high` hertz (0 stands for
    half the rate), `floor` in dB: quieter is all the same.
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
            raise ValueError(f"a rate, an even window of at least two hops, and mels are needed, not {self}")
        if not (0 <= self.low < self.top <= self.rate / 2 and self.floor < 0):
            raise ValueError(f"0 <= low < high <= rate / 2 and a floor below 0 dB are needed, not {self}")

    @property
    def top(self) -> float:
        """The highest frequency, in hertz."""
        return self.high or self.rate / 2

    @property
    def bins(self) -> int:
        return self.window // 2 + 1


def mel_of(rate: int, fine: bool = False) -> Mel:
    """The picture for a rate: a window of 32 ms, two of which overlap, and 64 mels at 8 kHz, so many more at higher
    rates as there are more mels to cover (4,000 numbers a second at 8 kHz, 7,000 at 44.1 kHz).

    `fine` has four windows overlap: twice the numbers. Of spoken digits a recogniser hears as many after the coarse
    picture and back as before, with 40 mels as well; but then the voice is another one (docs/log.md).
    """
    window = 64 * max(1, round(WINDOW * rate / 64))
    span = float(to_mel(torch.tensor(rate / 2)))
    return Mel(rate, window, window // (4 if fine else 2), 8 * max(1, round(span * 1.6 / 7)))


# --------------------------------------------------------------------------- the transform and its inverse


@lru_cache(maxsize=32)
def hann(window: int) -> Tensor:
    """(window,), with sum 2: a sine of amplitude 1 has magnitude 1."""
    w = torch.hann_window(window, dtype=torch.float64)
    return (w * (2 / w.sum())).float()


def stft(x: Tensor, window: int, hop: int) -> Tensor:
    """x (B, T) to its complex spectrum (B, window // 2 + 1, ceil(T / hop)). Raises ValueError when T is 0."""
    if x.dim() != 2 or not x.shape[1]:
        raise ValueError(f"sounds (B, T) of at least one sample are needed, not {tuple(x.shape)}")
    before = (window - hop) // 2
    after = window - hop - before + -x.shape[1] % hop
    padded = F.pad(x, (before, after))
    return torch.stft(padded, window, hop, window=hann(window).to(x.device), center=False, return_complex=True)


def overlapped(frames: Tensor, hop: int) -> Tensor:
    """Frames (B, window, n) added up where they lie, (B, (n - 1) hop + window)."""
    window, n = frames.shape[1:]
    pieces = -(-window // hop)  # of a hop each; a sixth of the time that torch's fold takes
    cut = F.pad(frames.transpose(1, 2), (0, pieces * hop - window)).reshape(len(frames), n, pieces, hop)
    total = frames.new_zeros(len(frames), n + pieces - 1, hop)
    for i in range(pieces):
        total[:, i : i + n] += cut[:, :, i]
    return total.flatten(1)[:, : (n - 1) * hop + window]


@lru_cache(maxsize=32)
def overlap(window: int, hop: int, n: int) -> Tensor:
    """The sum of the squared windows of n frames at each sample, ((n - 1) hop + window,); never 0 inside the sound."""
    return overlapped(hann(window).square()[None, :, None].expand(1, window, n), hop)[0].clamp_min(SMALL)


def waveform(spectrum: Tensor, window: int, hop: int) -> Tensor:
    """The sound (B, frames * hop) whose `stft` is nearest to the spectrum (Griffin and Lim 1984, eq. 6); the inverse of
    `stft` where there is one."""
    frames = torch.fft.irfft(spectrum, n=window, dim=1) * hann(window).to(spectrum.device)[:, None]
    n = frames.shape[2]
    sound = overlapped(frames, hop) / overlap(window, hop, n).to(frames.device)
    before = (window - hop) // 2
    return sound[:, before : before + n * hop]


# --------------------------------------------------------------------------- mels


def to_mel(hertz: Tensor) -> Tensor:
    """Slaney's scale (1998, "Auditory Toolbox"): 66.7 Hz a mel below 1 kHz, then 27 mels to each factor of 6.4."""
    above = KNEE_MEL + torch.log(hertz.clamp_min(KNEE_HZ) / KNEE_HZ) / STEP
    return torch.where(hertz < KNEE_HZ, hertz * (KNEE_MEL / KNEE_HZ), above)


def to_hertz(mel: Tensor) -> Tensor:
    """The inverse of `to_mel`."""
    return torch.where(mel < KNEE_MEL, mel * (KNEE_HZ / KNEE_MEL), KNEE_HZ * torch.exp(STEP * (mel - KNEE_MEL)))


@lru_cache(maxsize=32)
def mel_filters(mel: Mel) -> Tensor:
    """Weights (mels, bins) of each bin's power in each band.

    Triangles of unit peak, evenly spaced on Slaney's scale: they sum to 1 between the middles of the first and the
    last, so that bands share out the sound's power, and wide bands make up for the fall of most sounds to high
    frequencies. Slaney's scale, because at the bottom HTK's bands are narrower than a bin. A bin's weight is the
    triangle's mean over the bin's width instead of its value in the middle, so that no band is empty, however narrow.
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
    """x (B, T) to the power in each band, (B, mels, ceil(T / hop)), in dB from `floor` to about 2: a sine of amplitude
    1 has 10 log10(1.5) spread over the bands around it, since three bins of a Hann window share it."""
    power = stft(x, mel.window, mel.hop).abs().square()
    bands = mel_filters(mel).to(x.device) @ power
    return 10 * torch.log10(bands.clamp_min(10 ** (mel.floor / 10)))


def to_magnitude(y: Tensor, mel: Mel) -> Tensor:
    """A magnitude (B, bins, frames) with log-mel y (B, mels, frames) in dB: at the floor exactly 0.

    Of the many powers P >= 0 with filters P = bands, the smooth one to which the multiplicative steps of Lee and Seung
    (2001, theorem 2) lead from an even start. Their divergence weighs quiet bands as loud ones, as ears do: least
    squares (the pseudo-inverse cut at 0, or 100 accelerated projected steps) end further from the true magnitude.
    """
    filters = mel_filters(mel).to(y.device)
    bands = (torch.pow(10, y / 10) - 10 ** (mel.floor / 10)).clamp_min(0)
    share = filters.sum(0)[:, None]
    share = torch.where(share > 0, 1 / share.clamp_min(SMALL), 0)  # bins outside all bands stay 0
    power = filters.T @ (bands / filters.sum(1)[:, None])
    for _ in range(BALANCE_STEPS):
        power = power * share * (filters.T @ (bands / (filters @ power).clamp_min(SMALL**2)))
    return power.sqrt()


# --------------------------------------------------------------------------- phases


def first_phase(magnitude: Tensor, window: int, hop: int) -> Tensor:
    """A phase (B, bins, frames), float32, that runs on in time at the frequency that the magnitude tells.

    With a Gaussian window the derivative of the phase in time is the bin's frequency and the derivative of the
    logarithm of the magnitude in frequency over gamma (Prusa et al. 2017, sec. III; GAMMA is their value for a Hann
    window). Summed along time alone, which takes no heap: `griffin_lim` does the rest.
    """
    loudest = magnitude.amax((1, 2), keepdim=True)
    log = torch.log(torch.maximum(magnitude, loudest * 1e-4).clamp_min(SMALL))
    slope = F.pad((log[:, 2:] - log[:, :-2]) / 2, (0, 0, 1, 1))
    own = torch.arange(magnitude.shape[1], device=magnitude.device)[:, None] * (2 * math.pi * hop / window)
    advance = (own + slope * (hop / (GAMMA * window))).double()  # radians a frame
    steps = (advance + advance.roll(1, 2)) / 2
    return torch.remainder(steps.cumsum(2), 2 * math.pi).float()


@torch.no_grad()
def griffin_lim(magnitude: Tensor, window: int, hop: int, steps: int = 32, momentum: float = 0.99) -> Tensor:
    """A sound (B, frames * hop) whose spectrum has about the magnitude (B, bins, frames).

    The fast algorithm of Perraudin et al. (2013, algorithm 2), from `first_phase`. Raises ValueError when steps is
    negative.
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
    """A sound (B, frames * hop) with about the log-mel y (B, mels, frames) in dB. Without gradients."""
    with torch.no_grad():
        return griffin_lim(to_magnitude(y, mel), mel.window, mel.hop, steps)


# --------------------------------------------------------------------------- distance


def windows_of(rate: int) -> tuple[int, ...]:
    """The powers of two nearest to SCALES, in samples."""
    return tuple(2 ** max(3, round(math.log2(rate * s))) for s in SCALES)


def multi_scale_distance(a: Tensor, b: Tensor, rate: int) -> Tensor:
    """How far sounds a are from sounds b, both (B, T), (B,): 0 for equal ones.

    The mean over `windows_of` the rate, a quarter of a window apart, of the spectral convergence and the mean
    difference of log-magnitudes (Yamamoto et al. 2020, Parallel WaveGAN, eq. 5-7; magnitudes as in this file, no less
    than QUIETEST). Raises ValueError when the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"sounds of the same shape are needed, not {tuple(a.shape)} and {tuple(b.shape)}")
    total = torch.zeros(len(a), device=a.device)
    for window in windows_of(rate):
        ours, theirs = (stft(x, window, window // 4).abs().clamp_min(QUIETEST) for x in (a, b))
        apart = torch.linalg.vector_norm(ours - theirs, dim=(1, 2)) / torch.linalg.vector_norm(theirs, dim=(1, 2))
        total = total + apart + (ours.log() - theirs.log()).abs().mean((1, 2))
    return total / len(SCALES)
