"""Sounds to log-mel spectrograms and back, many at a time, with parameters that suit a rate."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from afresh.core import Sound
from afresh.nets.spectrum import SMALL, Mel, log_mel, mel_of, stft, to_sound, waveform

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


@torch.no_grad()
def splice_sound(known: Sound, made: Sound, start: int, stop: int) -> Sound:
    """`known` with its samples `start` to `stop` from `made`, which is as long and lies over it; the rest as it is.

    Where `made` is a known sound whose phases were found anew, it does not meet the samples beside: the steps of
    Griffin and Lim (nets.spectrum.griffin_lim) lead from it to a sound of its magnitudes, the known samples held. Of a
    tone of 440 Hz with 0.15 s drawn anew the spectral distance (nets.spectrum.multi_scale_distance) is 0.48 so, 1.68
    where it is put in as it is; of five spoken digits 0.45 to 0.60 and 0.58 to 0.65.
    """
    held, x = (torch.from_numpy(s.samples.T.copy()) for s in (known, made))
    inside = torch.zeros(x.shape[1], dtype=torch.bool)
    inside[start:stop] = True
    if not torch.equal(held[:, ~inside], x[:, ~inside]):
        window = mel_of(known.rate).window
        hop = window // 4
        target = stft(x, window, hop).abs()
        x = torch.where(inside, x, held)
        before: Tensor | None = None
        for _ in range(STEPS):
            now = stft(x, window, hop)
            ahead = now if before is None else torch.lerp(before, now, 1.99)
            before = now
            found = waveform(ahead * (target / ahead.abs().clamp_min(SMALL)), window, hop)[:, : x.shape[1]]
            x = torch.where(inside, found.clamp(-1, 1), held)
    return replace(known, samples=x.T.numpy().copy())
