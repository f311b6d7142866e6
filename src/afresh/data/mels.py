"""Sounds to log-mel spectrograms and back, many at a time, with parameters that suit a rate."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from afresh.nets.spectrum import Mel, log_mel, mel_of, to_sound

FAINTEST, RANGE = -100.0, 80.0  # dB below full scale, and below the loudest band of the data: what is no more kept
CHUNK = 64  # sounds at a time
STEPS = 32  # of finding the phases


def mel_for(rate: int, floor: float, fine: bool = False, mels: int | None = None) -> Mel:
    """What suits a rate (nets.spectrum.mel_of), with another floor in dB and another number of bands where one is
    given."""
    found = replace(mel_of(rate, fine), floor=floor)
    return found if mels is None else replace(found, mels=mels)


def levels(mel: Mel, wave: Tensor) -> Tensor:
    """(N, C, samples) to dB (N, C, mels, frames)."""
    parts = [log_mel(w.flatten(0, 1), mel).unflatten(0, w.shape[:2]) for w in wave.split(CHUNK)]
    return torch.cat(parts) if parts else torch.zeros(0, wave.shape[1], mel.mels, wave.shape[2] // mel.hop)


def waves(mel: Mel, level: Tensor) -> Tensor:
    """dB (N, C, mels, frames) to (N, C, frames * hop), within [-1, 1]; phases are found (nets.spectrum.to_sound)."""
    parts = [to_sound(y.flatten(0, 1), mel, STEPS).unflatten(0, y.shape[:2]) for y in level.split(CHUNK)]
    wave = torch.cat(parts)
    return wave / wave.abs().amax((1, 2), keepdim=True).clamp_min(1.0)
