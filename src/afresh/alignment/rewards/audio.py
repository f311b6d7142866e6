"""Built-in rewards for sounds (core.Sound), of the wave that is heard: the mean of its channels, but for its loudness.

None has a differentiable form: what a model draws is mostly a log-mel spectrogram, from which the wave is found by a
search for its phases, without a gradient. `class:LABEL` judges the field itself and has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.alignment.rewards.reward import Builtin, Context, Failed, Request, Reward, options
from afresh.core import Sound, UserError
from afresh.data.audio.kind import SOUND
from afresh.nets.spectrum import Mel, log_mel, mel_of, stft

Wave = NDArray[np.float64]  # (T,)
FAINTEST = -100.0  # dB below full scale: what is quieter is as loud
RANGE = 80.0  # dB from a full tone to what counts as silence when sounds are compared
FRAME = 0.02  # seconds of a frame that is silent or not
WINDOW, STEP = 0.05, 0.025  # seconds of a frame whose pitch is found
LOW, HIGH = 60.0, 1500.0  # hertz that a pitch is looked for between
VOICED = 0.5  # of a wave's power that recurs after a period, from which it has a pitch
FINE, OCTAVE = 4, 0.02  # lags a sample; what a period twice as long must recur better by
LOUD = 30.0  # dB below the loudest frame down to which pitch is asked of one
AT_ONCE = 256  # frames
LONGEST, MOST, CHANNELS = 60.0, 1 << 26, 64  # seconds, numbers and channels that are read of a sound to be near to


def checked(item: Any, number: int) -> Sound:
    """Raises Failed for what is no sound."""
    if not isinstance(item, Sound) or item.samples.ndim != 2 or not item.samples.size:
        raise Failed("no sound, which is core.Sound of samples (T, C).", number)
    if not np.isfinite(item.samples).all():
        raise Failed("some of its samples are not finite.", number)
    return item


def each(function: Callable[[Sound], float]) -> Reward:
    """The reward of a function of one sound."""

    def score(items: Sequence[Any], requests: Sequence[Request]) -> list[float]:
        return [function(checked(item, i)) for i, item in enumerate(items)]

    return Reward("", score, SOUND)


def plain(name: str, function: Callable[[Sound], float]) -> Callable[[str | None, Context], Reward]:
    """The maker of a reward that has no options."""

    def make(argument: str | None, context: Context) -> Reward:
        options(name, argument, {})
        return each(function)

    return make


def mono(sound: Sound) -> Wave:
    """The mean of the channels, (T,)."""
    return np.asarray(sound.samples.mean(1, dtype=np.float64))


def decibels(power: float) -> float:
    return max(FAINTEST, 10 * math.log10(power)) if power > 0 else FAINTEST


def loudness(sound: Sound) -> float:
    """The mean square of all samples and channels in dB relative to 1, no less than FAINTEST: a sine of full scale has
    -3.01, half the amplitude is 6.02 less. It is not weighted by what ears hear."""
    return decibels(float(np.square(sound.samples, dtype=np.float64).mean()))


def brightness(sound: Sound) -> float:
    """The centroid of the power spectrum in kHz, over all frames together: a sine has its own frequency, white noise a
    quarter of the rate, silence 0."""
    mel = mel_of(sound.rate)
    power = stft(torch.from_numpy(mono(sound).astype(np.float32))[None], mel.window, mel.hop)[0].abs().square()
    each_bin = power.double().sum(1)  # (bins,)
    total = float(each_bin.sum())
    frequency = torch.arange(len(each_bin), dtype=torch.float64) * (sound.rate / mel.window)
    return float((frequency * each_bin).sum()) / total / 1000 if total > 0 else 0.0


# ------------------------------------------------------------------------------------------------------------- pitch


def pitches(sound: Sound) -> NDArray[np.float64]:
    """Hertz of each frame that is at most LOUD dB below the loudest, NaN of one without a pitch: (F,), none of silence.

    The first lag, but for OCTAVE, at which a frame's autocorrelation, divided by its window's, is highest (Boersma
    1993, eq. 9 and 23-24, each frame by itself and at
    twice his cost of an octave). Lags lie FINE a sample apart, so that short periods are told as well.
    """
    wave, rate = mono(sound), sound.rate
    size, step = max(8, round(WINDOW * rate)), max(1, round(STEP * rate))
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::step]
    power = np.square(frames).mean(1)
    if not power.max() > 0:
        return np.zeros(0)
    frames = frames[power >= power.max() * 10 ** (-LOUD / 10)]
    return np.concatenate([recurring(frames[i : i + AT_ONCE], rate) for i in range(0, len(frames), AT_ONCE)])


def recurring(frames: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Hertz of frames (F, W), NaN where nothing recurs."""
    size = frames.shape[1]
    window = np.hanning(size + 2)[1:-1]
    frames = (frames - frames.mean(1, keepdims=True)) * window
    first, last = int(FINE * rate / HIGH), min(FINE * size // 2, int(FINE * rate / LOW) + 1)
    found, own = (autocorrelation(f, last + 2) for f in (frames, window[None]))
    found = found / np.maximum(found[:, :1], 1e-30) / (own / own[:, :1])
    lags = np.arange(max(2, first), last + 1)
    here, before, after = found[:, lags], found[:, lags - 1], found[:, lags + 1]
    peak = (here >= before) & (here > after) & (here >= VOICED)
    worth = np.where(peak, here - OCTAVE * np.log2(lags * (LOW / FINE / rate)), -np.inf)
    best = worth.argmax(1)
    rows = np.arange(len(frames))
    a, b, c = before[rows, best], here[rows, best], after[rows, best]
    bend = np.where(peak[rows, best], a - 2 * b + c, -1.0)
    lag = lags[best] + np.where(bend < 0, (a - c) / (2 * np.minimum(bend, -1e-30)), 0.0)  # the parabola's top
    return np.where(peak[rows, best], FINE * rate / lag, np.nan)


def autocorrelation(frames: NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """(F, W) to (F, lags), FINE lags a sample: the spectrum of the power is followed by zeros."""
    n = 1 << (2 * frames.shape[1] - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(frames, n)) ** 2
    spectrum[:, -1] /= 2  # stands for itself and its mirror image, which are apart now
    return np.asarray(np.fft.irfft(spectrum, n * FINE)[:, :lags])


def hertz(text: str) -> float:
    value = float(text)
    if not LOW <= value <= HIGH:
        raise ValueError(f"a frequency from {LOW:g} to {HIGH:g}")
    return value


def pitch(argument: str | None, context: Context) -> Reward:
    """How near frames that are not silent come to a pitch: the mean of 1 minus the distance in octaves, no less than 0,
    which is also what noise gets. 1 is that pitch throughout."""
    wanted = options("pitch", argument, {"hz": hertz}).get("hz")
    if wanted is None:
        raise UserError("The reward pitch needs a frequency in hertz, as in pitch:hz=220.")

    def near_to(sound: Sound) -> float:
        found = pitches(sound)
        apart = np.abs(np.log2(np.where(np.isnan(found), 4 * HIGH, found) / wanted))
        return float(np.maximum(0.0, 1 - apart).mean()) if len(found) else 0.0

    return each(near_to)


# ------------------------------------------------------------------------------------------------------------- time


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError("seconds above 0")
    return value


def duration(argument: str | None, context: Context) -> Reward:
    """Seconds; with min or max how near they come to lying between them, 0 to 1: min / max divided, as of lengths."""
    given = options("duration", argument, {"min": seconds, "max": seconds})
    low, high = given.get("min", 0.0), given.get("max", math.inf)
    if low > high:
        raise UserError(f"The reward duration: min={low:g} is above max={high:g}. Exchange them.")
    if not given:
        return each(lambda sound: sound.seconds)
    return each(lambda sound: min(1.0, sound.seconds / low if low else 1.0, high / sound.seconds))


def below(text: str) -> float:
    value = float(text)
    if not FAINTEST <= value < 0:
        raise ValueError(f"dB from {FAINTEST:g} to below 0")
    return value


def silence(argument: str | None, context: Context) -> Reward:
    """The share of frames of 20 ms (the last may be shorter) whose mean square is below `db`, -60 if not given."""
    most = 10 ** (options("silence", argument, {"db": below}).get("db", -60.0) / 10)

    def share(sound: Sound) -> float:
        power = np.square(sound.samples, dtype=np.float64).mean(1)
        starts = np.arange(0, len(power), max(1, round(FRAME * sound.rate)))
        sizes = np.diff(np.append(starts, len(power)))
        return float((np.add.reduceat(power, starts) / sizes < most).mean())

    return each(share)


# ---------------------------------------------------------------------------------------------------------- likeness


@lru_cache(maxsize=8)
def heard_at(rate: int) -> Mel:
    return mel_of(rate)


def levels(wave: Wave, rate: int) -> NDArray[np.float32]:
    """(frames, mels): dB above silence, of RANGE."""
    found = log_mel(torch.from_numpy(wave.astype(np.float32))[None], heard_at(rate))[0]
    return np.asarray((found.T / RANGE + 1).numpy())


def apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The root mean square difference of levels (frames, mels); the shorter is followed by silence. 0 is the same, 1 a
    full tone in every band against silence."""
    common = min(len(a), len(b))
    squares = [np.square(part, dtype=np.float64).sum() for part in (a[:common] - b[:common], a[common:], b[common:])]
    return float(math.sqrt(sum(squares) / (max(len(a), len(b)) * a.shape[1])))


def opened(path: str, rate: int) -> Wave:
    """The first LONGEST seconds of a file, its channels' mean, at a rate. Raises UserError."""
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(path) as file:
            if not 1 <= file.channels <= CHANNELS:
                raise ValueError(f"{file.channels:,} channels, and at most {CHANNELS} are read")
            most = min(int(LONGEST * file.samplerate), MOST // file.channels)
            found = file.read(most, dtype="float32", always_2d=True).mean(1)
            if not len(found) or not np.isfinite(found).all():
                raise ValueError("it is empty, or has samples that are no numbers")
            made = found if file.samplerate == rate else soxr.resample(found, file.samplerate, rate)
    except (OSError, ValueError, RuntimeError) as e:  # soundfile's errors are RuntimeErrors
        raise UserError(f"The reward near: {path} cannot be read as a sound ({e}). Name a WAV or FLAC file.") from None
    if not len(made):
        raise UserError(f"The reward near: {path} is too short. Name a longer sound.")
    return np.asarray(made, np.float64)


def near(argument: str | None, context: Context) -> Reward:
    """1 minus the root mean square difference to a sound of what `nets.spectrum.mel_of` sees, in 80 dB: 1 the same.

    Both begin together and the shorter is followed by silence. The file is brought to the rate of what is scored.
    """
    if not argument:
        raise UserError("The reward near needs a sound, as in near:bell.wav.")
    wanted: dict[int, NDArray[np.float32]] = {}
    opened(argument, 8_000)  # what cannot be read is said now

    def likeness(sound: Sound) -> float:
        if sound.rate not in wanted:
            wanted[sound.rate] = levels(opened(argument, sound.rate), sound.rate)
        return 1 - apart(levels(mono(sound), sound.rate), wanted[sound.rate])

    return each(likeness)


def novel(argument: str | None, context: Context) -> Reward:
    """The distance to the nearest training sound, measured as `near` does: 0 a copy."""
    options("novel", argument, {})
    if not len(context.train):
        raise UserError("The reward novel needs the training sounds, and there are none here.")
    rates = sorted({sound.rate for sound in context.train})
    train = [levels(mono(sound), sound.rate) for sound in context.train if sound.rate == rates[0]]
    sizes = np.array([len(t) for t in train])
    table = np.zeros((len(train), sizes.max(), train[0].shape[1]), np.float32)  # silence is 0
    for row, t in zip(table, train, strict=True):
        row[: len(t)] = t

    def newness(sound: Sound) -> float:
        if rates != [sound.rate]:
            raise UserError(f"The reward novel compares sounds of one rate: {sound.rate} given, {rates} in training.")
        own = levels(mono(sound), sound.rate)
        common = min(len(own), table.shape[1])
        rest = float(np.square(own[common:], dtype=np.float64).sum())
        behind = np.square(table[:, common:]).sum((1, 2), dtype=np.float64)
        squares = np.square(table[:, :common] - own[:common]).sum((1, 2), dtype=np.float64) + rest + behind
        return float(np.sqrt((squares / (np.maximum(sizes, len(own)) * own.shape[1])).min()))

    return each(newness)


SOUNDS = {
    "loudness": Builtin(plain("loudness", loudness), "mean square in dB of full scale, -100 to 0"),
    "brightness": Builtin(plain("brightness", brightness), "centroid of the spectrum, in kHz"),
    "pitch": Builtin(pitch, "pitch:hz=N, nearness of the pitch, 0 an octave off or noise, 1 that pitch"),
    "duration": Builtin(duration, "seconds; min=N, max=N: how near to lying between, 0 to 1"),
    "silence": Builtin(silence, "share of 20 ms frames quieter than db=-60, 0 to 1"),
    "near": Builtin(near, "near:FILE, likeness to a sound by its log-mel spectrogram, 1 the same"),
    "novel": Builtin(novel, "distance to the nearest training sound, by log-mel spectrograms, 0 a copy"),
}
REWARDS = {SOUND.name: SOUNDS}
