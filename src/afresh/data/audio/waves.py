"""Sounds as arrays (T, C) in [-1, 1]: where they begin and end, how loud they are, how they are cut to a length."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]  # (T, C)

FRAME = 0.02  # seconds of a frame when silence is looked for; half of it is the step
PIECE = 4096  # frames that are looked at together
BLOCK, STEP = 0.4, 0.1  # seconds: blocks of loudness, 75% overlapping
GATE, BELOW = -70.0, -10.0  # LKFS; LU relative to what is above the first gate
OFFSET = -0.691  # dB: what the K-weighting adds at 997 Hz
SHELF = (1681.974450955533, 3.999843853973347, 0.7071752369554196)  # Hz, dB, quality
HIGH_PASS = (38.13547087602444, 0.5003270373238773)  # Hz, quality


def trim_bounds(x: Samples, rate: int, threshold_db: float = -40.0, margin_s: float = 0.02) -> tuple[int, int]:
    """(start, stop) of what is louder than `threshold_db` below the loudest frame, with a margin on both sides.

    Frames are 20 ms, stepping 10; a frame's level is its root mean square over samples and channels. All of x where
    it is silent throughout. `threshold_db` is negative.
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
    """The sum of squares of `size` samples at every `step`, silence following the end, (T // step + 1,); piece by
    piece, so that hours take no more memory beside them than minutes."""
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
    and one 10 LU below the mean of what passes it; channels count alike. A sine of 997 Hz at full scale in one channel
    is -3.01. Beyond the text: what is shorter than 400 ms is one block, and where nothing passes the gates all counts.
    """
    if not len(x):
        return -math.inf
    power = np.square(k_weighted(x, rate)).sum(1)
    size, step = round(BLOCK * rate), round(STEP * rate)
    means = _sums(power, size, step) / size if len(x) >= size else power.mean(keepdims=True)
    kept = means
    passes = means > _power(GATE)
    if passes.any():
        kept = means[passes & (means > _power(_lkfs(float(means[passes].mean())) + BELOW))]
    return _lkfs(float(kept.mean()))


def k_weighted(x: Samples, rate: int) -> NDArray[np.float64]:
    """The two filters of ITU-R BS.1770-5: a shelf for the head, then a high-pass.

    The text gives coefficients at 48 kHz; here they come from the analogue prototypes behind them (De Man 2014,
    evaluation of loudness meters), which give the same ones there. The shelf is left out of rates under 4 kHz, in
    which little of it would fit.
    """
    from scipy.signal import sosfilt

    sections = [_section(*HIGH_PASS, rate)]
    if rate >= 4_000:
        frequency, gain, quality = SHELF
        high = 10 ** (gain / 20)
        sections.append(_section(frequency, quality, rate, high**0.4996667741545416, high))
    return np.asarray(sosfilt(np.stack(sections), x.astype(np.float64), axis=0), np.float64)


def to_loudness(x: Samples, rate: int, target_db: float) -> Samples:
    """x times a factor that gives it `target_db` LKFS, or a smaller one so that no peak passes 1; silence as it is."""
    loudness = loudness_db(x, rate)
    if not math.isfinite(loudness):
        return x
    peak = float(np.abs(x).max())
    gain = min(10 ** ((target_db - loudness) / 20), (1 - 1e-6) / peak)
    return x * np.float32(gain)


def windows(frames: int, window: int, hop: int) -> list[tuple[int, int]]:
    """(start, stop) of windows that cover 0 to `frames`, every `hop`; the last is aligned to the end.

    So all have `window` frames, and the last overlaps the one before by more than the others do. What is no longer
    than a window is one slice of its own length: pad it with `fitted`. `hop` is 1 to `window`: no frame is left out.
    """
    if not 1 <= hop <= window:
        raise ValueError(f"a hop of {hop} leaves frames out between windows of {window}, or does not move")
    if frames <= window:
        return [(0, frames)] if frames > 0 else []
    starts = list(range(0, frames - window + 1, hop))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return [(s, s + window) for s in starts]


def fitted(x: Samples, frames: int, fade: int = 64) -> Samples:
    """x (T, C) to (frames, C): its end is cut, or followed by silence; x itself where it fits.

    The last `fade` frames before the cut or the silence fade out (half a cosine), so that the step makes no click.
    """
    if len(x) == frames:
        return x
    out = np.zeros((frames, x.shape[1]), np.float32)
    kept = min(len(x), frames)
    out[:kept] = x[:kept]
    n = min(fade, kept)
    slope = 0.5 + 0.5 * np.cos(np.pi * (np.arange(n) + 1) / (n + 1))
    out[kept - n : kept] *= slope.astype(np.float32)[:, None]
    return out


def _section(
    frequency: float, quality: float, rate: int, middle: float | None = None, high: float = 1.0
) -> NDArray[np.float64]:
    """(6,) coefficients b0 b1 b2 1 a1 a2 of (high s^2 + middle s / quality + 1) / (s^2 + s / quality + 1), or of the
    high-pass 1 - 2 / z + 1 / z^2 over the same where `middle` is None; s by the bilinear transform at `frequency`."""
    k = math.tan(math.pi * frequency / rate)
    first = 1 + k / quality + k * k
    below = np.array([first, 2 * (k * k - 1), 1 - k / quality + k * k]) / first
    if middle is None:
        return np.array([1.0, -2.0, 1.0, *below])
    slope = middle * k / quality
    return np.array([*(np.array([high + slope + k * k, 2 * (k * k - high), high - slope + k * k]) / first), *below])


def _sums(values: NDArray[np.float64], size: int, step: int) -> NDArray[np.float64]:
    """Sums of `size` values at every `step`, as far as they fit. Not differences of running sums: what is loud before
    would leave its rounding in what is silent."""
    return np.lib.stride_tricks.sliding_window_view(values, size)[::step].sum(1)


def _lkfs(power: float) -> float:
    return OFFSET + 10 * math.log10(power) if power > 0 else -math.inf


def _power(lkfs: float) -> float:
    return float(10 ** ((lkfs - OFFSET) / 10))
