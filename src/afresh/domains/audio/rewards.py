"""Built-in rewards for sounds (core.Sound). Except for `loudness` and `silence`, they use the mean of the channels.

They have no differentiable form, because most models draw log-mel spectrograms, whose phases are found by an iterative
search without a gradient. `class:LABEL` scores the field itself and is differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Sound, UserError
from afresh.data.audio.kind import SOUND
from afresh.engine.alignment.rewards.reward import Builtin, Context, Request, Reward, ScoringError, options, whole_file
from afresh.engine.nets.spectrum import log_mel, mel_of, stft

Wave = NDArray[np.float64]  # (T,)
MIN_DECIBELS = -100.0  # loudness relative to full scale that quieter sounds are set to
DECIBEL_RANGE = 80.0  # from a full-scale tone to silence, when sounds are compared
SILENCE_SECONDS = 0.02  # length of the frames of `silence`
PITCH_WINDOW, PITCH_STEP = 0.05, 0.025  # seconds: length and distance of the frames of `pitch`
MIN_HERTZ, MAX_HERTZ = 60.0, 1500.0  # range in which a pitch is searched
MIN_CORRELATION = 0.5  # share of a frame's power that must recur after a period for the frame to have a pitch
LAGS_PER_SAMPLE = 4  # resolution of periods
OCTAVE_COST = 0.02  # correlation by which a period twice as long must be better
PITCH_RANGE = 30.0  # dB below the loudest frame; quieter frames are ignored by `pitch`
CHUNK_SIZE = 256  # frames that are processed together
MAX_SECONDS, MAX_VALUES, MAX_CHANNELS = 60.0, 1 << 26, 64  # limits on what is read of the file of `near`


def checked(item: Any, number: int) -> Sound:
    """The item. Raises ScoringError if it is not a sound with finite samples (T, C)."""
    if not isinstance(item, Sound) or item.samples.ndim != 2 or not item.samples.size:
        raise ScoringError("it is not a sound, which is a core.Sound with samples (T, C).", number)
    if not np.isfinite(item.samples).all():
        raise ScoringError("some of its samples are not finite.", number)
    return item


def each(function: Callable[[Sound], float]) -> Reward:
    """The reward of a function of one sound."""

    def score(items: Sequence[Any], requests: Sequence[Request]) -> list[float]:
        return [function(checked(item, i)) for i, item in enumerate(items)]

    return Reward("", score, SOUND)


def plain(name: str, function: Callable[[Sound], float]) -> Callable[[str | None, Context], Reward]:
    """The function that makes a reward without options."""

    def make(argument: str | None, context: Context) -> Reward:
        options(name, argument, {})
        return each(function)

    return make


def mono(sound: Sound) -> Wave:
    """The mean of the channels, (T,)."""
    return np.asarray(sound.samples.mean(1, dtype=np.float64))


def decibels(power: float) -> float:
    return max(MIN_DECIBELS, 10 * math.log10(power)) if power > 0 else MIN_DECIBELS


def loudness(sound: Sound) -> float:
    """The mean square of all samples and channels in dB relative to 1, at least MIN_DECIBELS.

    A sine of full scale has -3.01 dB, and half the amplitude 6.02 dB less. Frequencies are not weighted.
    """
    return decibels(float(np.square(sound.samples, dtype=np.float64).mean()))


def brightness(sound: Sound) -> float:
    """The centroid of the power spectrum of all frames in kHz: the frequency of a sine, a quarter of the sample rate
    for white noise, and 0 for silence."""
    mel = mel_of(sound.rate)
    power = stft(torch.from_numpy(mono(sound).astype(np.float32))[None], mel.window, mel.hop)[0].abs().square()
    each_bin = power.double().sum(1)  # (bins,)
    total = float(each_bin.sum())
    frequency = torch.arange(len(each_bin), dtype=torch.float64) * (sound.rate / mel.window)
    return float((frequency * each_bin).sum()) / total / 1000 if total > 0 else 0.0


# ------------------------------------------------------------------------------------------------------------- pitch


def pitches(sound: Sound) -> NDArray[np.float64]:
    """Pitch in hertz (F,) of the F frames that are at most PITCH_RANGE dB below the loudest; F = 0 for silence.

    The period is the lag with the highest autocorrelation, divided by that of the window and less OCTAVE_COST for each
    octave (Boersma 1993, eq. 9 and 23-24, for each frame separately and with twice his cost of an octave). Frames
    without a pitch are NaN. There are LAGS_PER_SAMPLE lags for each sample, so that short periods are resolved.
    """
    wave, rate = mono(sound), sound.rate
    size, step = max(8, round(PITCH_WINDOW * rate)), max(1, round(PITCH_STEP * rate))
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::step]
    power = np.square(frames).mean(1)
    if not power.max() > 0:
        return np.zeros(0)
    frames = frames[power >= power.max() * 10 ** (-PITCH_RANGE / 10)]
    return np.concatenate([recurring(frames[i : i + CHUNK_SIZE], rate) for i in range(0, len(frames), CHUNK_SIZE)])


def recurring(frames: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Pitch in hertz of frames (F, W), NaN for those without a period."""
    size = frames.shape[1]
    window = np.hanning(size + 2)[1:-1]
    frames = (frames - frames.mean(1, keepdims=True)) * window
    first, last = (
        int(LAGS_PER_SAMPLE * rate / MAX_HERTZ),
        min(LAGS_PER_SAMPLE * size // 2, int(LAGS_PER_SAMPLE * rate / MIN_HERTZ) + 1),
    )
    values, of_window = (autocorrelation(f, last + 2) for f in (frames, window[None]))
    values = values / np.maximum(values[:, :1], 1e-30) / (of_window / of_window[:, :1])
    lags = np.arange(max(2, first), last + 1)
    here, before, after = values[:, lags], values[:, lags - 1], values[:, lags + 1]
    peak = (here >= before) & (here > after) & (here >= MIN_CORRELATION)
    strength = np.where(peak, here - OCTAVE_COST * np.log2(lags * (MIN_HERTZ / LAGS_PER_SAMPLE / rate)), -np.inf)
    best = strength.argmax(1)
    rows = np.arange(len(frames))
    a, b, c = before[rows, best], here[rows, best], after[rows, best]
    curvature = np.where(peak[rows, best], a - 2 * b + c, -1.0)
    offset = np.where(curvature < 0, (a - c) / (2 * np.minimum(curvature, -1e-30)), 0.0)  # maximum of the parabola
    lag = lags[best] + offset
    return np.where(peak[rows, best], LAGS_PER_SAMPLE * rate / lag, np.nan)


def autocorrelation(frames: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """Frames (F, W) to (F, lags), LAGS_PER_SAMPLE for each sample, by padding the power spectrum with zeros."""
    n = 1 << (2 * frames.shape[1] - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(frames, n)) ** 2
    spectrum[:, -1] /= 2  # the padding separates this frequency from its mirror image, which it included
    return np.asarray(np.fft.irfft(spectrum, n * LAGS_PER_SAMPLE)[:, :lags])


def hertz(text: str) -> float:
    value = float(text)
    if not MIN_HERTZ <= value <= MAX_HERTZ:
        raise ValueError(f"a frequency from {MIN_HERTZ:g} to {MAX_HERTZ:g}")
    return value


def pitch(argument: str | None, context: Context) -> Reward:
    """The mean over frames of 1 minus the distance to a pitch in octaves, at least 0.

    1 means that pitch throughout; frames without a pitch, such as noise, count 0, and silent frames are ignored.
    """
    wanted = options("pitch", argument, {"hz": hertz}).get("hz")
    if wanted is None:
        raise UserError("The reward pitch needs a frequency in hertz, as in pitch:hz=220.")

    def near_to(sound: Sound) -> float:
        heard = pitches(sound)
        octaves = np.abs(np.log2(np.where(np.isnan(heard), 4 * MAX_HERTZ, heard) / wanted))
        return float(np.maximum(0.0, 1 - octaves).mean()) if len(heard) else 0.0

    return each(near_to)


# ------------------------------------------------------------------------------------------------------------- time


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError("seconds above 0")
    return value


def duration(argument: str | None, context: Context) -> Reward:
    """The duration in seconds. With min or max: 1 between them, duration / min below, max / duration above."""
    given = options("duration", argument, {"min": seconds, "max": seconds})
    low, high = given.get("min", 0.0), given.get("max", math.inf)
    if low > high:
        raise UserError(f"The reward duration: min={low:g} is above max={high:g}. Exchange them.")
    if not given:
        return each(lambda sound: sound.seconds)
    return each(lambda sound: min(1.0, sound.seconds / low if low else 1.0, high / sound.seconds))


def below(text: str) -> float:
    value = float(text)
    if not MIN_DECIBELS <= value < 0:
        raise ValueError(f"dB from {MIN_DECIBELS:g} to below 0")
    return value


def silence(argument: str | None, context: Context) -> Reward:
    """The share of frames of 20 ms (the last may be shorter) whose mean square is below `db`, -60 by default."""
    threshold = 10 ** (options("silence", argument, {"db": below}).get("db", -60.0) / 10)

    def share(sound: Sound) -> float:
        power = np.square(sound.samples, dtype=np.float64).mean(1)
        starts = np.arange(0, len(power), max(1, round(SILENCE_SECONDS * sound.rate)))
        sizes = np.diff(np.append(starts, len(power)))
        return float((np.add.reduceat(power, starts) / sizes < threshold).mean())

    return each(share)


# ---------------------------------------------------------------------------------------------------------- likeness


mel_at = lru_cache(maxsize=8)(mel_of)  # by the rate


def levels(wave: Wave, rate: int) -> NDArray[np.float32]:
    """The log-mel spectrogram (frames, mels) as a share of DECIBEL_RANGE: 0 for silence."""
    mels = log_mel(torch.from_numpy(wave.astype(np.float32))[None], mel_at(rate))[0]
    return np.asarray((mels.T / DECIBEL_RANGE + 1).numpy())


def level_distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The root mean square difference of levels (frames, mels), the shorter padded with silence: 0 for equal levels, 1
    for full scale in every band against silence."""
    common = min(len(a), len(b))
    squares = [np.square(part, dtype=np.float64).sum() for part in (a[:common] - b[:common], a[common:], b[common:])]
    return float(math.sqrt(sum(squares) / (max(len(a), len(b)) * a.shape[1])))


def opened(path: str, rate: int) -> Wave:
    """The first MAX_SECONDS of a file, as the mean of its channels at a sample rate. Raises UserError."""
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(path) as file:
            if not 1 <= file.channels <= MAX_CHANNELS:
                raise ValueError(f"it has {file.channels:,} channels, but at most {MAX_CHANNELS} are supported")
            count = min(int(MAX_SECONDS * file.samplerate), MAX_VALUES // file.channels)
            wave = file.read(count, dtype="float32", always_2d=True).mean(1)
            if not len(wave) or not np.isfinite(wave).all():
                raise ValueError("it is empty or has samples that are not finite")
            resampled = wave if file.samplerate == rate else soxr.resample(wave, file.samplerate, rate)
    except (OSError, ValueError, RuntimeError) as e:  # soundfile's errors are RuntimeErrors
        raise UserError(f"The reward near: {path} cannot be read as a sound ({e}). Name a WAV or FLAC file.") from None
    if not len(resampled):
        raise UserError(f"The reward near: {path} is too short. Name a longer sound.")
    return np.asarray(resampled, np.float64)


def near(argument: str | None, context: Context) -> Reward:
    """1 minus the root mean square difference to a sound in log-mel spectrograms of DECIBEL_RANGE; 1 if they are equal.

    The sounds are aligned at their beginning and the shorter is padded with silence. The file is resampled to the rate
    of the scored sounds.
    """
    if not argument:
        raise UserError("The reward near needs a sound, as in near:bell.wav.")
    wanted: dict[int, NDArray[np.float32]] = {}
    opened(argument, 8_000)  # raises now if the file cannot be read

    def likeness(sound: Sound) -> float:
        if sound.rate not in wanted:
            wanted[sound.rate] = levels(opened(argument, sound.rate), sound.rate)
        return 1 - level_distance(levels(mono(sound), sound.rate), wanted[sound.rate])

    return each(likeness)


def novel(argument: str | None, context: Context) -> Reward:
    """The distance to the nearest training sound, measured as in `near`: 0 for a copy."""
    options("novel", argument, {})
    if not len(context.train):
        raise UserError("The reward novel needs training sounds, which are not available here.")
    rates = sorted({sound.rate for sound in context.train})
    train = [levels(mono(sound), sound.rate) for sound in context.train if sound.rate == rates[0]]

    def distance(sound: Sound) -> float:
        if rates != [sound.rate]:
            raise UserError(f"The reward novel compares sounds of one rate. Given: {sound.rate}; in training: {rates}.")
        own = levels(mono(sound), sound.rate)
        return min(level_distance(own, other) for other in train)

    return each(distance)


SOUNDS = {
    "loudness": Builtin(plain("loudness", loudness), "mean square in dB of full scale, -100 to 0"),
    "brightness": Builtin(plain("brightness", brightness), "centroid of the spectrum, in kHz"),
    "pitch": Builtin(pitch, "pitch:hz=N, similarity of the pitch, 0 (an octave off, or noise) to 1 (that pitch)"),
    "duration": Builtin(duration, "seconds; with min=N or max=N, 1 between them and less outside"),
    "silence": Builtin(silence, "share of 20 ms frames quieter than db=-60, 0 to 1"),
    "near": Builtin(
        near, "near:FILE, similarity to a sound by log-mel spectrograms, 1 for the same sound", file=whole_file
    ),
    "novel": Builtin(novel, "distance to the nearest training sound by log-mel spectrograms, 0 for a copy"),
}
REWARDS = {SOUND.name: SOUNDS}
