"""Loudness and pitch of a sound over time, as conditions that a sample can be asked to follow."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Curve = Literal["loudness", "pitch"]
QUIETEST = -80.0  # dB relative to full scale, encoded as -1; full scale is 1
LOWEST, OCTAVES = 55.0, 5.0  # Hz, encoded as -1; octaves from -1 to 1
SLOWEST, FASTEST = 60.0, 1_000.0  # Hz; range in which a pitch is searched
VOICED = 0.15  # threshold on YIN's normalised difference below which there is a pitch (in the paper 0.1 to 0.15)


def curve(name: Curve, wave: Tensor, rate: int, frames: int) -> Tensor:
    """Wave (B, T) to a curve (B, frames) in [-1, 1], with a value at the centre of each of `frames` equal parts."""
    return {"loudness": loudness, "pitch": pitch}[name](wave, rate, frames)


def windows_around(wave: Tensor, size: int, frames: int) -> Tensor:
    """`size` samples around the centre of each of `frames` equal parts, (B, frames, size), padded with silence."""
    centres = ((torch.arange(frames) + 0.5) * wave.shape[1] / frames).long()
    padded = F.pad(wave, (size // 2, size))
    return padded[:, (centres[:, None] + torch.arange(size)).to(wave.device)]


def loudness(wave: Tensor, rate: int, frames: int) -> Tensor:
    """Root mean square over 32 ms in dB, mapped from [QUIETEST, 0] to [-1, 1], (B, frames)."""
    size = max(2, round(0.032 * rate))
    level = 10 * torch.log10(windows_around(wave, size, frames).square().mean(2).clamp_min(1e-12))
    return (1 - 2 * level / QUIETEST).clamp(-1, 1)


def pitch(wave: Tensor, rate: int, frames: int) -> Tensor:
    """The fundamental frequency on a logarithmic scale, (B, frames): LOWEST is -1, OCTAVES above it 1, no pitch -1.

    YIN (de Cheveigné and Kawahara 2002, sec. II, steps 2 to 5): the first minimum below VOICED of the difference
    function divided by its cumulative mean, refined by a parabola.
    """
    least, most = max(2, int(rate / FASTEST)), math.ceil(rate / SLOWEST)
    size = 2 * most
    if size > wave.shape[1]:
        return wave.new_full((len(wave), frames), -1.0)
    x = windows_around(wave, size, frames)
    d = difference(x, most)  # (B, frames, most + 1), by lag
    mean = d[..., 1:].cumsum(2) / torch.arange(1, most + 1, device=x.device)
    d = torch.cat([torch.ones_like(d[..., :1]), d[..., 1:] / mean.clamp_min(1e-12)], 2)
    inner = d[..., 1:-1]
    minima = (inner < VOICED) & (inner <= d[..., :-2]) & (inner <= d[..., 2:])
    minima[..., : least - 1] = False
    voiced = minima.any(2) & (x.square().mean(2) > 1e-8)
    lag = minima.int().argmax(2) + 1
    a, b, c = (d.gather(2, (lag + k)[..., None])[..., 0] for k in (-1, 0, 1))
    curvature = (a - 2 * b + c).clamp_min(1e-9)
    hertz = rate / (lag + (0.5 * (a - c) / curvature).clamp(-0.5, 0.5))
    level = (2 * torch.log2(hertz / LOWEST) / OCTAVES - 1).clamp(-1, 1)
    return torch.where(voiced, level, -1.0)


def difference(x: Tensor, most: int) -> Tensor:
    """sum_j (x_j - x_{j + lag})^2 over the first half of x (..., 2 most), for lags 0 to `most`: (..., most + 1)."""
    first, n = x[..., :most], 4 * most
    spectrum = torch.fft.rfft(first, n).conj() * torch.fft.rfft(x, n)
    products = torch.fft.irfft(spectrum, n)[..., : most + 1]
    energy = F.pad(x.square().cumsum(-1), (1, 0))
    shifted = energy[..., most : 2 * most + 1] - energy[..., : most + 1]
    return (shifted[..., :1] + shifted - 2 * products).clamp_min(0)
