"""Scores of a first result against held-out items that no model saw; lower is better. Fixed before any run.

Images: KID in EfficientNet-Lite0, where all are cut to a square and brought to one side, the data's own default, so
that a model of a lower resolution pays for what it leaves out. Sounds: KAD in log-mel statistics. Texts, code and
tunes: bits per byte of all that is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from afresh.api import Model
from afresh.core import Score, Sound
from afresh.domains.text.metrics import bits_per_byte
from afresh.engine.evaluation.distribution import kid
from afresh.engine.evaluation.estimate import Array
from afresh.runs.data import run_data
from afresh.verbs.measuring import RunEvidence
from benchmarks.images import efficientnet
from benchmarks.images.sets import Bytes
from benchmarks.sound.judges import View, cut, kad

IMAGES, SOUNDS, SEED = 400, 200, 20_016  # samples that are drawn; their seed
SMALLEST = 1.0  # a smaller KID or KAD x1000 cannot be told from 0 with so few items


@dataclass(frozen=True)
class Judged:
    """A score, and what training items score instead of samples (0 where there is no such floor).

    `recognised`: share of samples whose class, which was asked for, is seen by a classifier; None without classes.
    """

    score: float
    floor: float = 0.0
    recognised: float | None = None


class Judge(Protocol):
    @property
    def title(self) -> str: ...

    def judge(self, data: Path, model: Model) -> Judged:
        """The score of a model of data/train by data/held."""


@dataclass(frozen=True)
class Images:
    """KID x1000 of images with `side` pixels."""

    side: int
    title: str = "KID x1000"

    def judge(self, data: Path, model: Model) -> Judged:
        real, labels = image_features(data / "held", self.side)
        copies, _ = image_features(data / "train", self.side)
        samples = model.sample(IMAGES, seed=SEED)
        drawn = seen([square(picture(v), self.side) for v in samples.values])
        asked = [d.get("label") for d in samples.described]
        value, floor = (1000 * kid(x, real).value for x in (drawn, copies))
        return Judged(value, max(floor, SMALLEST), recognised(real, labels, drawn, asked))


@dataclass(frozen=True)
class Sounds:
    """KAD x1000 of sounds in a view's log-mel statistics."""

    view: View
    title: str = "KAD x1000, log-mel"

    def judge(self, data: Path, model: Model) -> Judged:
        real, copies = (sound_statistics(data / side, self.view) for side in ("held", "train"))
        samples = model.sample(SOUNDS, seed=SEED)
        drawn = self.view.statistics([at_rate(v, self.view.mel.rate) for v in samples.values])
        value, floor = (1000 * kad(x, real).value for x in (drawn, copies))
        return Judged(value, max(floor, SMALLEST))


@dataclass(frozen=True)
class Bits:
    """Bits for each byte of all held-out text, of tunes for each byte of their notes as words. For a family whose
    likelihood is only bounded, the bound."""

    title: str = "bits a byte"

    def judge(self, data: Path, model: Model) -> Judged:
        return likelihood(bits_per_byte(RunEvidence(model.run, run_data(model.run, data / "held"))))


def likelihood(scores: Sequence[Score]) -> Judged:
    """The model's own bits per byte among scores with those of compressors. Raises ValueError if there are none."""
    for score in scores:
        if score.name in ("bits_per_byte", "bits_per_byte/bound"):
            return Judged(score.value)
    raise ValueError("the model has no likelihood of text")


# --------------------------------------------------------------------------- images


def picture(x: Bytes) -> Image.Image:
    return Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)


def square(image: Image.Image, side: int) -> Bytes:
    """(side, side, 3): cut to the centre; box where it shrinks, bicubic where it grows."""
    method = Image.Resampling.BOX if min(image.size) > side else Image.Resampling.BICUBIC
    return np.asarray(ImageOps.fit(image.convert("RGB"), (side, side), method))


@cache
def network() -> efficientnet.EfficientNetLite0:
    return efficientnet.efficientnet()


def seen(x: Sequence[Bytes]) -> Array:
    """Features (N, 1280)."""
    return efficientnet.features(network(), np.stack(x)).astype(np.float64)


@cache
def image_features(folder: Path, side: int) -> tuple[Array, tuple[str, ...]]:
    """Features and classes (empty where there are no folders of classes) of at most IMAGES of a folder's images."""
    files = sorted([*folder.rglob("*.png"), *folder.rglob("*.jpg")])
    files = [files[i] for i in np.random.default_rng(SEED).permutation(len(files))[:IMAGES]]
    x = []
    for file in files:
        with Image.open(file) as image:
            x.append(square(image, side))
    return seen(x), tuple("" if f.parent == folder else f.parent.name for f in files)


def recognised(real: Array, labels: Sequence[str], drawn: Array, asked: Sequence[str | None]) -> float | None:
    """Share of drawn features (N, D) with the asked class by a logistic regression that learns from real ones; None
    without classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(labels)) < 2 or None in asked:
        return None
    found = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(real, labels).predict(drawn)
    return float(np.mean([f == a for f, a in zip(found, asked, strict=True)]))


# --------------------------------------------------------------------------- sounds


def at_rate(sound: Sound, rate: int) -> Sound:
    """One channel at another rate, without the silence around it."""
    import soxr

    mono = np.asarray(sound.samples, np.float32).mean(1)
    return cut(Sound(soxr.resample(mono, sound.rate, rate)[:, None], rate))


@cache
def sound_statistics(folder: Path, view: View) -> Array:
    import soundfile

    read = [soundfile.read(f, dtype="float32", always_2d=True) for f in sorted(folder.rglob("*.*")) if f.is_file()]
    return view.statistics([at_rate(Sound(x, rate), view.mel.rate) for x, rate in read])
