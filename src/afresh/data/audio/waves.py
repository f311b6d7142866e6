"""Sounds as arrays (T, C) in [-1, 1]: trimming silence, measuring and setting loudness, and fitting to a length."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]  # (T, C)

FRAME = 0.02  # seconds of a frame for detecting silence; the hop is half of it
PIECE = 4096  # frames that are processed at once
BLOCK, STEP = 0.4, 0.1  # seconds; blocks for loudness overlap by 75%
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0  # LKFS; LU relative to the mean of what passes the absolute gate
OFFSET = -0.691  # dB that the K-weighting adds at 997 Hz
SHELF = (1681.974450955533, 3.999843853973347, 0.7071752369554196)  # Hz, dB, quality
HIGH_PASS = (38.13547087602444, 0.5003270373238773)  # Hz, quality


def trim_bounds(x: Samples, rate: int, threshold_db: float = -40.0, margin_s: float = 0.02) -> tuple[int, int]:
    """(start, stop) of the part that is louder than `threshold_db` relative to the loudest frame, with a margin.

    Frames are 20 ms long with a hop of 10 ms; the level of a frame is its root mean square over samples and channels.
    Returns all of x if it is silent throughout. `threshold_db` is negative.
    """
    size = max(1, round(FRAME * rate))
    step = max(1, size // 2)
    if len(x) <= size:
        return 0, len(x)
    power = frame_energies(x, size, step)
    if not power.max() > 0:
        return 0, len(x)
    loud = np.flatnonzero(power >= power.max() * 10 ** (threshold_db / 10))
    margin = round(margin_s * rate)
    return max(0, int(loud[0]) * step - margin), min(len(x), int(loud[-1]) * step + size + margin)


def frame_energies(x: Samples, size: int, step: int) -> NDArray[np.float64]:
    """Sums of squares of `size` samples every `step` samples, with silence after the end, (T // step + 1,).

    Computed piece by piece, so that the additional memory does not depend on the length.
    """
    count, out = len(x) // step + 1, []
    for a in range(0, count, PIECE):
        b = min(count, a + PIECE)
        piece = x[a * step : (b - 1) * step + size]
        square = np.square(piece, dtype=np.float64).sum(1)
        out.append(_sums(np.pad(square, (0, (b - 1 - a) * step + size - len(square))), size, step))
    return np.concatenate(out)


def loudness_db(x: Samples, rate: int) -> float:
    """Integrated loudness in LKFS (= LUFS, dB relative to full scale); minus infinity for silence.

    ITU-R BS.1770-5 2023, annex 1: K-weighting, mean square of 400 ms blocks that overlap by 75%, a gate at -70 LKFS
    and one at 10 LU below the mean of the blocks that pass it; all channels have equal weight. A sine of 997 Hz at full
    scale in one channel has -3.01. In addition, a sound shorter than 400 ms is one block, and if no block passes the
    gates, all blocks count.
    """
    if not len(x):
        return -math.inf
    power = np.square(k_weighted(x, rate)).sum(1)
    size, step = round(BLOCK * rate), round(STEP * rate)
    means = _sums(power, size, step) / size if len(x) >= size else power.mean(keepdims=True)
    gated = means
    passes = means > _power(ABSOLUTE_GATE)
    if passes.any():
        gated = means[passes & (means > _power(_lkfs(float(means[passes].mean())) + RELATIVE_GATE))]
    return _lkfs(float(gated.mean()))


def k_weighted(x: Samples, rate: int) -> NDArray[np.float64]:
    """The two filters of ITU-R BS.1770-5: a shelf that models the head, and a high-pass.

    The recommendation lists coefficients for 48 kHz. They are computed here from their analogue prototypes (De Man
    2014, evaluation of loudness meters), which give the same values at 48 kHz. The shelf is omitted at rates below
    4 kHz, where it lies mostly above the highest frequency.
    """
    from scipy.signal import sosfilt

    sections = [_section(*HIGH_PASS, rate)]
    if rate >= 4_000:
        frequency, gain, quality = SHELF
        high = 10 ** (gain / 20)
        sections.append(_section(frequency, quality, rate, high**0.4996667741545416, high))
    return np.asarray(sosfilt(np.stack(sections), x.astype(np.float64), axis=0), np.float64)


def to_loudness(x: Samples, rate: int, target_db: float) -> Samples:
    """x scaled to `target_db` LKFS, or as close to it as is possible without exceeding 1. Silence is not changed."""
    loudness = loudness_db(x, rate)
    if not math.isfinite(loudness):
        return x
    peak = float(np.abs(x).max())
    gain = min(10 ** ((target_db - loudness) / 20), (1 - 1e-6) / peak)
    return x * np.float32(gain)


def windows(frames: int, window: int, hop: int) -> list[tuple[int, int]]:
    """(start, stop) of windows of `window` frames that cover 0 to `frames`, one every `hop`; the last ends at the end.

    The last window may therefore overlap the one before by more than the others do. A sound that is not longer than a
    window gives one window of its own length, which `fit_length` can pad. Raises ValueError if `hop` is not between 1
    and `window`.
    """
    if not 1 <= hop <= window:
        raise ValueError(f"the hop must be between 1 and the window of {window} frames, not {hop}")
    if frames <= window:
        return [(0, frames)] if frames > 0 else []
    starts = list(range(0, frames - window + 1, hop))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return [(s, s + window) for s in starts]


def fit_length(x: Samples, frames: int, fade: int = 64) -> Samples:
    """x (T, C) cut or padded with silence to (frames, C).

    If the length changes, the last `fade` frames of the sound fade out (half a cosine), to avoid an audible click.
    """
    if len(x) == frames:
        return x
    out = np.zeros((frames, x.shape[1]), np.float32)
    used = min(len(x), frames)
    out[:used] = x[:used]
    n = min(fade, used)
    slope = 0.5 + 0.5 * np.cos(np.pi * (np.arange(n) + 1) / (n + 1))
    out[used - n : used] *= slope.astype(np.float32)[:, None]
    return out


def resampled(x: Samples, rate: int, to: int) -> Samples:
    """x (T, C) at `rate` Hz, at `to` Hz."""
    import soxr

    return x if rate == to else np.asarray(soxr.resample(x, rate, to), np.float32)


def join(given: Samples, drawn: Samples, start: int, stop: int, fade: int) -> Samples:
    """`given` with samples `start` to `stop` from `drawn`, both (T, C); outside of them nothing changes.

    `drawn` follows `given` outside as far as it can, without its high frequencies or the differences of its channels.
    What it lacks there is mirrored into the new part at both ends, and fades out (half a cosine) over `fade` samples,
    so that no step is audible. If `drawn` lacks nothing, the new part is as it was drawn.
    """
    out, rest = given.copy(), given - drawn
    new = drawn[start:stop].copy()
    slope = (0.5 + 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(1, fade))).astype(np.float32)[:, None]
    before, after = rest[max(0, start - fade) : start][::-1][: len(new)], rest[stop : stop + fade][: len(new)]
    new[: len(before)] += before * slope[: len(before)]
    new[len(new) - len(after) :] += (after * slope[: len(after)])[::-1]
    out[start:stop] = new.clip(-1, 1)
    return out


def _section(
    frequency: float, quality: float, rate: int, middle: float | None = None, high: float = 1.0
) -> NDArray[np.float64]:
    """Coefficients b0 b1 b2 1 a1 a2 of a filter with numerator high s^2 + middle s / quality + 1, or, if `middle` is
    None, the high-pass numerator 1 - 2 / z + 1 / z^2, and denominator s^2 + s / quality + 1; s is the bilinear
    transform at `frequency` Hz. Shape (6,)."""
    k = math.tan(math.pi * frequency / rate)
    first = 1 + k / quality + k * k
    denominator = np.array([first, 2 * (k * k - 1), 1 - k / quality + k * k]) / first
    if middle is None:
        return np.array([1.0, -2.0, 1.0, *denominator])
    slope = middle * k / quality
    numerator = np.array([high + slope + k * k, 2 * (k * k - high), high - slope + k * k]) / first
    return np.array([*numerator, *denominator])


def _sums(values: NDArray[np.float64], size: int, step: int) -> NDArray[np.float64]:
    """Sums of `size` values every `step` values. Not computed as differences of cumulative sums, in which the rounding
    errors of loud parts would exceed silent parts."""
    return np.lib.stride_tricks.sliding_window_view(values, size)[::step].sum(1)


def _lkfs(power: float) -> float:
    return OFFSET + 10 * math.log10(power) if power > 0 else -math.inf


def _power(lkfs: float) -> float:
    return float(10 ** ((lkfs - OFFSET) / 10))
