"""What judges of sounds share: what they see of a sound (log-mel pictures of another make than the models', and numbers
of them), a kernel audio distance, shares, and what every score stands between."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Sound
from afresh.data.audio.waves import trim_bounds
from afresh.engine.evaluation.distribution import distances
from afresh.engine.evaluation.estimate import GROUPS, Array, Estimate, jackknife, leave_out, share
from afresh.engine.nets.spectrum import Mel, log_mel
from benchmarks.common.folders import write_json


def cut(sound: Sound) -> Sound:
    """Without the silence around it, as afresh reads sounds."""
    start, stop = trim_bounds(sound.samples, sound.rate)
    return Sound(sound.samples[start:stop], sound.rate)


@dataclass(frozen=True)
class View:
    """A picture of `mel`; of a field it is `frames` long, and `cell` bands and frames are one cell of what is compared
    with training clips."""

    mel: Mel
    frames: int
    cell: int

    def level(self, sound: Sound) -> Tensor:
        """Its log-mel picture (mels, frames) in dB, of at least two frames."""
        mono = torch.from_numpy(np.ascontiguousarray(sound.samples.mean(1), np.float32))
        short = max(0, 2 * self.mel.hop - len(mono))
        return log_mel(torch.nn.functional.pad(mono, (0, short))[None], self.mel)[0]

    def fields(self, sounds: Sequence[Sound]) -> Tensor:
        """(N, 1, mels, frames) from -1 (as quiet as is told apart) to about 1: cut, or followed by silence."""
        out = torch.full((len(sounds), 1, self.mel.mels, self.frames), -1.0)
        for row, sound in zip(out, sounds, strict=True):
            picture = self.level(sound)[:, : self.frames]
            row[0, :, : picture.shape[1]] = 1 - picture / (self.mel.floor / 2)
        return out

    def coarse(self, sounds: Sequence[Sound]) -> Array:
        """(N, mels / cell x frames / cell): means of the fields over cells. The way through a spectrogram and back
        draws the noise of a recording anew: in fields as they are 36% of the training clips of spoken digits are known
        again after it, in cells of 4 x 4 96%."""
        return torch.nn.functional.avg_pool2d(self.fields(sounds), self.cell).flatten(1).double().numpy()

    def statistics(self, sounds: Sequence[Sound]) -> Array:
        """(N, 4 mels): the mean and the deviation over time of each band's level and of its change a frame, in dB."""
        rows = []
        for sound in sounds:
            x = self.level(sound).double().numpy()
            change = np.diff(x, axis=1)
            rows.append(np.concatenate([x.mean(1), x.std(1), change.mean(1), change.std(1)]))
        return np.stack(rows)


BESIDE = ("floor", "vocoded", "copies", "gaussian")


@dataclass(frozen=True)
class Mark:
    """A score of a model with its 95% interval, and the same score of what it stands between; None: has no meaning."""

    value: float
    low: float | None
    high: float | None
    n: int
    floor: float | None
    vocoded: float | None
    copies: float | None
    gaussian: float | None


def marks(own: dict[str, Estimate], beside: dict[str, dict[str, Estimate]]) -> dict[str, Mark]:
    """Scores by name with the same of the sets in `beside`, by the names of BESIDE, where these have one."""
    values = {k: [beside[b][k].value if k in beside[b] else None for b in BESIDE] for k in own}
    return {k: Mark(e.value, e.low, e.high, e.n, *values[k]) for k, e in own.items()}


def kad(x: Array, reference: Array) -> Estimate:
    """Kernel audio distance (Chung et al. 2025, eq. 5) of rows (N, D) from reference rows (M, D), without a factor.

    The unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) under exp(-|a - b|^2 / (2 s^2)), s the
    median distance of the reference rows: 0 in expectation for equal distributions, so that it may be negative. The
    interval is a grouped jackknife over both samples, whose rows must be in random order; s stays. Raises ValueError
    for fewer than two rows, or when most reference rows are equal.
    """
    if min(len(x), len(reference)) < 2:
        raise ValueError(f"KAD needs at least 2 rows on both sides, not {len(x)} and {len(reference)}")
    apart = distances(reference, reference)
    width = float(np.median(apart[np.triu_indices(len(reference), 1)]))
    if width == 0:
        raise ValueError("half of the reference's distances are 0: there is no width for a kernel")
    xx, yy, xy = (np.exp(-np.square(d / width) / 2) for d in (distances(x, x), apart, distances(x, reference)))
    value, n = discrepancy(xx, yy, xy), min(len(x), len(reference))
    if n < 2 * GROUPS:
        return Estimate(value, None, None, n)
    pairs = zip(leave_out(len(x)), leave_out(len(reference)), strict=True)
    without = [discrepancy(xx[np.ix_(a, a)], yy[np.ix_(b, b)], xy[np.ix_(a, b)]) for a, b in pairs]
    return Estimate(value, *jackknife(value, without), n)


def discrepancy(xx: Array, yy: Array, xy: Array) -> float:
    """The U-statistic of kernel matrices within and between two samples, (N, N), (M, M) and (N, M)."""
    n, m = xy.shape
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def right(found: NDArray[np.int64], wanted: Sequence[int]) -> Estimate:
    return share(int((found == np.asarray(wanted)).sum()), len(wanted))


def thousand(e: Estimate) -> Estimate:
    low, high = (None if v is None else 1000 * v for v in (e.low, e.high))
    return Estimate(1000 * e.value, low, high, e.n, e.note)


def shown(marks: dict[str, Mark]) -> str:
    """A table: a line for every score."""
    lines = [f"{'':16}{'value':>10}  {'95% interval':^20}" + "".join(f"{b:>10}" for b in BESIDE)]
    for name, m in marks.items():
        between = "" if m.low is None or m.high is None else f"{m.low:.3f} .. {m.high:.3f}"
        rest = "".join(f"{'' if v is None else f'{v:.3f}':>10}" for v in (m.floor, m.vocoded, m.copies, m.gaussian))
        lines.append(f"{name:16}{m.value:10.3f}  {between:^20}{rest}")
    return "\n".join(lines)


def marks_of(folder: Path, judge: Callable[[Path], dict[str, Mark]]) -> dict[str, Mark]:
    """The marks of FOLDER/samples, judged where they were not before."""
    scores = folder / "scores.json"
    if not scores.exists():
        write_json(scores, {k: asdict(m) for k, m in judge(folder / "samples").items()})
    return {k: Mark(**m) for k, m in json.loads(scores.read_text()).items()}


def beside(m: Mark) -> str:
    said = {"real": m.floor, "vocoded": m.vocoded, "copies": m.copies, "Gaussian": m.gaussian}
    return ", ".join(f"{k} {v:.3g}" for k, v in said.items() if v is not None)
