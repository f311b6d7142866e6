"""What people see in images or hear in sounds, and one distance may miss: edges, specks, tones, parts; clicks.

Each statistic describes one image. Its score is the difference between the means of samples and of held-out images,
divided by the standard deviation of held-out images: 0 is as real, and at 1 the usual sample is as extreme as one real
image in six. What differs by SEEN or more is seen on a sheet of samples (benchmarks/images/readers.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core import CondSpec, Evidence, ItemKind, Metric, Question, Score, ScoreWords, Sound, Space
from afresh.engine.evaluation.estimate import Z95, Array, Estimate, mean
from afresh.engine.evaluation.image_sets import image_sets_of, image_space
from afresh.engine.evaluation.study import Unmeasurable, study_of
from afresh.engine.evaluation.verdict import FEW, place

SEEN = 0.8  # standard deviations; those of real images of six data sets are at most 0.4 apart
STEP = 2 / 255  # between two values of a byte
STRONGEST = 20  # of so many pixels, one has a strong edge
VISIBLE = 0.08  # difference between near pixels that is seen
GRID, PROFILE = 8, 32  # cells a side, and bins of rows or columns, of the places of parts
PIXELS = 1 << 17  # computed at once
MOST = 1 << 24  # pixels of a set; of more, the first images are looked at


class Statistic(NamedTuple):
    """least: the smallest standard deviation that counts, as a smaller difference is not seen. below, above: what one
    sees if samples have less or more of it than real images; empty if that is not a fault of its own."""

    name: str
    least: float
    below: str
    above: str


# The most telling first.
STATISTICS = {
    "specks": Statistic("specks", 0.2, "", "there are specks that real ones lack"),
    "lines": Statistic("outlines and thin lines", 0.2, "", "there are outlines that real ones lack"),
    "edges": Statistic("strength of edges", 0.1, "edges are soft", "edges are too sharp"),
    "detail": Statistic("fine detail", 0.25, "fine detail is missing", "there is too much fine detail"),
    "plain": Statistic("plain areas", 0.03, "plain areas have patterns", "surfaces are too plain"),
    "colours": Statistic("colours", 0.05, "colours are off", "colours are off"),
    "light": Statistic("brightness and contrast", 0.05, "tones are dark or flat", "tones are bright or hard"),
    "parts": Statistic("places of parts", 0.25, "parts are in wrong places", "parts are in wrong places"),
}


def statistics_of(x: Tensor) -> dict[str, Array]:
    """What is seen in images x (N, C, H, W) of about [-1, 1]: by name, numbers (N, K) of each image.

    detail: logarithm of the mean squared Laplacian. edges: that of the mean of the strongest gradients. lines: those of
    the mean visible height above both sides, and depth below them. specks: that of the mean visible excess over all
    eight neighbours. plain: share of pixels without a visible gradient. light: mean and standard deviation of the
    brightness. colours: means of red minus green, of blue minus yellow, and of the distance from grey. parts:
    `places_of`.
    """
    size = x[0, 0].numel()
    parts = [_statistics(part) for part in x[: max(2, MOST // size)].split(max(1, PIXELS // size))]
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}


def _statistics(x: Tensor) -> dict[str, Tensor]:
    grey = x.mean(1)  # (N, H, W)
    h, w = grey.shape[1:]
    wide = F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    near = [wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]  # opposite ones are at i and 8 - i
    pairs = list(zip(near[:4], near[:4:-1], strict=True))
    higher = [torch.maximum(a, b) for a, b in pairs]
    lower = [torch.minimum(a, b) for a, b in pairs]

    def log(values: Tensor, least: float = STEP / 8) -> Tensor:
        return (values.flatten(1).mean(1) + least).log()

    def visible(excess: Tensor) -> Tensor:
        return (excess - VISIBLE).clamp_min_(0)

    gradient = torch.hypot(near[5] - near[3], near[7] - near[1]).flatten(1)
    strongest = gradient.topk(max(1, gradient.shape[1] // STRONGEST), 1).values
    light, dark = visible(grey - reduce(torch.minimum, higher)), visible(reduce(torch.maximum, lower) - grey)
    above, below = visible(grey - reduce(torch.maximum, higher)), visible(reduce(torch.minimum, lower) - grey)
    out = {
        "detail": log((near[1] + near[3] + near[5] + near[7] - 4 * grey).square(), STEP**2),
        "edges": log(strongest, STEP),
        "lines": torch.stack([log(light), log(dark)], 1),
        "specks": log(above + below),
        "plain": (gradient < VISIBLE).float().mean(1),
        "light": torch.stack([grey.mean((1, 2)), grey.flatten(1).std(1, correction=0)], 1),
        "parts": places_of(grey),
    }
    if x.shape[1] == 3:
        red, blue = x[:, 0] - x[:, 1], x[:, 2] - (x[:, 0] + x[:, 1]) / 2
        out["colours"] = torch.stack([v.mean((1, 2)) for v in (red, blue, torch.hypot(red, blue))], 1)
    return {name: values.view(len(x), -1) for name, values in out.items()}


def places_of(grey: Tensor) -> Tensor:
    """Where things are in images (N, H, W), as numbers (N, K): how bright each cell of a grid is beside the others, and
    how much neighbours differ along each row and column beside the others."""
    h, w = grey.shape[1:]
    cells = F.adaptive_avg_pool2d(grey[:, None], (min(GRID, h), min(GRID, w))).flatten(1)
    cells = (cells - cells.mean(1, keepdim=True)) / (cells.std(1, keepdim=True, correction=0) + 0.05)
    profiles = []
    for steps in (grey.diff(dim=1).abs().mean(2), grey.diff(dim=2).abs().mean(1)):
        if steps.shape[1]:
            bins = F.adaptive_avg_pool1d(steps[:, None], min(PROFILE, steps.shape[1]))[:, 0]
            profiles.append(bins / (bins.mean(1, keepdim=True) + STEP))
    return torch.cat([cells, *profiles], 1)


def difference(fake: Array, real: Array, least: float) -> Estimate:
    """The difference between the means of fake (N, K) and real (M, K) in standard deviations of real, of the column
    where it is largest, with a normal interval. `least`: the smallest standard deviation that counts.

    The largest of K differences is large by chance. Its square is reduced by 2 log(K) squared standard errors, which
    the largest of K independent normal ones reaches (Leadbetter, Lindgren and Rootzen 1983, theorem 1.5.3).
    """
    unit = np.maximum(real.std(0, ddof=1), least)
    gap = (fake.mean(0) - real.mean(0)) / unit
    k = int(np.abs(gap).argmax())
    error = float(np.sqrt(fake[:, k].var(ddof=1) / len(fake) + real[:, k].var(ddof=1) / len(real)) / unit[k])
    by_chance = 2 * np.log(len(gap)) * error**2
    value = float(np.copysign(np.sqrt(max(0.0, gap[k] ** 2 - by_chance)), gap[k]))
    return Estimate(value, value - Z95 * error, value + Z95 * error, len(fake))


def appearance(evidence: Evidence) -> list[Score]:
    """What is seen in samples beside held-out images. Floor: training images. Control: blurred held-out images. Of
    sounds, only the fine detail of their spectra."""
    study = study_of(evidence)
    sets = image_sets_of(study)
    sets.need_neighbours(1)
    real, fake, floor, control = (statistics_of(sets.sets[which]) for which in ("real", "fake", "reserve", "blurred"))
    out = []
    for name in ("detail",) if study.space.timed else tuple(real):
        own, low, high = (difference(x[name], real[name], STATISTICS[name].least) for x in (fake, floor, control))
        out.append(own.score(f"appearance/{name}", "none", low.value, high.value))
    return out


# --------------------------------------------------------------------------- what one hears

NEAR_BY, BESIDE_PEAK = 0.01, 0.001  # seconds before and after a jump that it is compared with, without the nearest ones
SUDDEN = 1e3  # times the curvature around it: a jump in silence counts as so much
CLICKS = 0.85  # one hears clicks: the place between real sounds with a click in each, 0, and real sounds, 1, is below


def jump_of(sound: Sound) -> float:
    """The largest second difference of a sound, in times the root mean square of those around it, up to `SUDDEN`. It
    does not depend on the loudness. 1 for silence."""
    bend = np.abs(np.diff(sound.samples.mean(1, dtype=np.float64), n=2))
    at = int(bend.argmax()) if bend.size else 0
    if not bend.size or not bend[at]:
        return 1.0
    core, reach = (max(2, round(seconds * sound.rate)) for seconds in (BESIDE_PEAK, NEAR_BY))
    around = np.concatenate([bend[max(0, at - reach) : max(0, at - core)], bend[at + core + 1 : at + reach + 1]])
    usual = float(np.sqrt(np.square(around).mean())) if around.size else bend[at]
    return float(bend[at] / max(usual, bend[at] / SUDDEN))


def clicked(sound: Sound) -> Sound:
    """The sound with a click after a quarter of it, as high as its peak."""
    samples = sound.samples.copy()
    samples[len(samples) // 4] += np.abs(samples).max()
    return replace(sound, samples=samples)


def timed_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for sounds, else the reason why not."""
    return None if space.timed and kind.medium == "sound" else f"measures sounds, not {kind.plural}"


def clicks(evidence: Evidence) -> list[Score]:
    """The largest jump of a sound beside the samples around it, the geometric mean of all sounds. Floor: held-out
    sounds. Control: these with a click in each."""
    study = study_of(evidence)
    real = [item.value for item in study.heldout_items[: max(study.n, FEW)]]
    if not real:
        raise Unmeasurable("needs held-out sounds")

    def of(sounds: Iterable[Sound]) -> Estimate:
        found = mean(np.log([jump_of(sound) for sound in sounds]))
        low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
        return Estimate(math.exp(found.value), low, high, found.n)

    return [of(study.drawn.values).score("clicks", "lower", of(real).value, of(map(clicked, real)).value)]


def heard_of(scores: Mapping[str, Score], plural: str) -> str:
    """That one hears clicks, as a sentence; empty if one does not."""
    score = scores.get("clicks")
    found = place(score)
    if score is None or found is None or found >= CLICKS:
        return ""
    return (
        f"The {plural} click: their largest jump is {score.value:.3g} times the ones around it, that of real "
        f"{plural} {score.floor:.3g} times."
    )


def faults_of(scores: Mapping[str, Score]) -> list[str]:
    """What one sees that is not as in real images, the most telling first."""
    values = {name: scores[key].value for name in STATISTICS if (key := f"appearance/{name}") in scores}
    words = [STATISTICS[k].above if v > 0 else STATISTICS[k].below for k, v in values.items() if abs(v) >= SEEN]
    return [fault for fault in words if fault]


WORDS = ScoreWords(
    "what one sees beside real images",
    f"Deviation of the mean of samples, in standard deviations of real images; from {SEEN:g} on, one sees it.",
    Question.REAL,
)
BESIDE = {name: statistic.name for name, statistic in STATISTICS.items()}
HEARD = ScoreWords(
    "clicks",
    "The largest jump of a sound, in times the jumps within 10 ms of it; a click raises it, and loudness does not.",
    Question.REAL,
)
METRICS = (
    Metric("appearance", image_space, appearance, brief=True, words={"appearance": WORDS}, beside=BESIDE),
    Metric("clicks", timed_space, clicks, brief=True, words={"clicks": HEARD}),
)
