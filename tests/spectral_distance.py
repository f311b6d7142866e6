"""A distance of sounds by their spectra, by which tests and benchmarks judge them."""

from __future__ import annotations

import torch
from torch import Tensor

from afresh.engine.nets.spectrum import SCALES, stft, windows_of

QUIETEST = 1e-5  # magnitudes below, -100 dB, count as this


def multi_scale_distance(a: Tensor, b: Tensor, rate: int) -> Tensor:
    """The multi-resolution distance of waveforms a from waveforms b, both (B, T): (B,), 0 for equal ones.

    The mean over `windows_of` the rate, with hops of a quarter of a window, of the spectral convergence plus the mean
    difference of log magnitudes (Yamamoto et al. 2020, Parallel WaveGAN, eq. 5-7; magnitudes are scaled as in
    nets.spectrum and clamped at QUIETEST). Raises ValueError if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"the shapes must be equal, not {tuple(a.shape)} and {tuple(b.shape)}")
    total = torch.zeros(len(a), device=a.device)
    for window in windows_of(rate):
        ours, theirs = (stft(x, window, window // 4).abs().clamp_min(QUIETEST) for x in (a, b))
        apart = torch.linalg.vector_norm(ours - theirs, dim=(1, 2)) / torch.linalg.vector_norm(theirs, dim=(1, 2))
        total = total + apart + (ours.log() - theirs.log()).abs().mean((1, 2))
    return total / len(SCALES)
