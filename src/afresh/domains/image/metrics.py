"""Metrics of images, and of sounds by their spectra. Every distance is reported beside three references.

`floor` is the score of training images that the encoders were not trained on, as of a perfect model; `control` is the
score of copies of training images. Copies score well in every distance, which is why `near_copies` is reported as well.
The score of the trivial model has a row of its own, `NAME/pixel_gaussian`: a distance near it means that little was
learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from afresh.core import Cond, CondSpec, Evidence, ItemKind, Metric, Score, Space
from afresh.domains.image.verdict import judge_images
from afresh.engine.evaluation import distribution as d
from afresh.engine.evaluation.encoders import label_parts
from afresh.engine.evaluation.estimate import Array, Estimate, mean, share
from afresh.engine.evaluation.image_sets import MAX_TRAIN, ImageSets, image_sets_of, image_space, images_of
from afresh.engine.evaluation.label_classifier import LabelClassifier, train_label_classifier
from afresh.engine.evaluation.memorisation import close_copies, near_copies, nearest, nearest_ratio
from afresh.engine.evaluation.score_descriptions import read_words
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of
from afresh.engine.evaluation.time_budget import CLASSIFIER, LEAST_STEPS

Better = Literal["lower", "higher", "none"]
MAX_VALUES = 200_000_000  # of the training images that are searched for copies; more are averaged down
CHUNK = 1024  # of them that become vectors at once
CROSS_CHECKS = ("random_net", "pixel_pca")


def labelled_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for images and sounds with labels, else the reason why not."""
    reason = image_space(kind, space, conds)
    if reason is None and not label_parts(conds):
        return "needs a label with at least two classes in the data"
    return reason


def _beside(
    name: str, sets: ImageSets, better: Better, statistic: Callable[[str], Estimate], gaussian: bool = True
) -> list[Score]:
    """A statistic of the set `fake` with its floor and control, and that of the trivial model in a row of its own."""
    floor, control = statistic("reserve").value, statistic("copies").value
    own = statistic("fake")
    sets.study.note(own.note and f"{name}: {own.note}")
    out = [own.score(name, better, floor, control)]
    if gaussian:
        out.append(statistic("gaussian").score(f"{name}/pixel_gaussian", better, floor, control))
    return out


def _distance_metric(name: str, distance: Callable[[Array, Array], Estimate], brief: bool) -> Metric:
    """A metric from the distance of features to those of held-out images, in the domain encoder and in two others."""

    def compute(evidence: Evidence) -> list[Score]:
        sets = image_sets_of(study_of(evidence))

        def of(encoder: str) -> Callable[[str], Estimate]:
            return lambda which: distance(sets.features(encoder, which), sets.features(encoder, "real"))

        out = _beside(name, sets, "lower", of("domain"))
        for encoder in CROSS_CHECKS:
            out += _beside(f"{name}/{encoder}", sets, "lower", of(encoder), gaussian=False)
        return out

    return Metric(name, image_space, compute, brief)


Pair = tuple[Estimate, Estimate]


def _pair_metric(name: str, position: int, pair: Callable[[Array, Array, int], Pair], key: str, k: int) -> Metric:
    """A metric from a function of (real, fake, k nearest neighbours) that returns two estimates and is computed once
    for both."""

    def compute(evidence: Evidence) -> list[Score]:
        study = study_of(evidence)
        sets = image_sets_of(study)
        sets.need_neighbours(k)

        def statistic(which: str) -> Estimate:
            real, fake = sets.features("domain", "real"), sets.features("domain", which)
            return study.once(f"{key}/{which}", lambda: pair(real, fake, k))[position]

        return _beside(name, sets, "higher", statistic)

    return Metric(name, image_space, compute, brief=True)


def two_sample(evidence: Evidence) -> list[Score]:
    """Accuracy of a classifier that separates samples from held-out images."""
    sets = image_sets_of(study_of(evidence))
    seed = sets.study.rng.seed % 2**32

    def of(which: str) -> Estimate:
        return d.two_sample_linear(sets.features("domain", which), sets.features("domain", "real"), seed)

    sets.study.note(f"two_sample: 0.5 = indistinguishable from held-out {sets.study.things}, 1 = always recognised")
    return _beside("two_sample", sets, "lower", of)


# --------------------------------------------------------------------------- repeats and large shapes

NEIGHBOUR = 3  # of a sample, whose distance says how varied samples are
GRID = 8  # cells a side, of the large shapes of an image


def variety(evidence: Evidence) -> list[Score]:
    """Median distance of a sample to its third nearest other sample, relative to that of held-out images.

    Near 1 for a model of the data's distribution and near 0 if the samples are variations of a few images. Control:
    blurred held-out images, which are nearer to each other without being repeated.
    """
    sets = image_sets_of(study_of(evidence))
    sets.need_neighbours(NEIGHBOUR)

    def radius(name: str, which: str) -> float:
        x = sets.features("domain", which) if name == "variety" else sets.sets[which].flatten(1).numpy()
        return float(np.median(d.neighbour_radius(x, NEIGHBOUR)))

    out = []
    for name in ("variety/pixels",) if sets.few else ("variety", "variety/pixels"):
        real = max(radius(name, "real"), 1e-12)
        own, floor, control = (radius(name, which) / real for which in ("fake", "reserve", "blurred"))
        out.append(Score(name, own, None, None, sets.m, "none", floor, control))
    return out


def shapes(x: torch.Tensor) -> torch.Tensor:
    """The large shapes of images (N, C, H, W) as unit vectors (N, D): means over a grid of at most 8 x 8, without the
    mean of the set and without each image's own brightness."""
    grid = (min(GRID, x.shape[2]), min(GRID, x.shape[3]))
    small = torch.cat([F.adaptive_avg_pool2d(part.double(), grid) for part in x.split(CHUNK)])
    small = small - small.mean(0, keepdim=True)
    return F.normalize((small - small.mean((2, 3), keepdim=True)).flatten(1), dim=1)


def likeness(evidence: Evidence) -> list[Score]:
    """How much the large shapes of a sample resemble those of some training image: the mean over samples of the
    highest correlation.

    Fine detail and contrast do not count, so that blurred or noisy samples of real things are near the floor. Control:
    images of independent noise, which resemble some training image by chance.
    """
    sets = image_sets_of(study_of(evidence))
    table = shapes(images_of(sets.study.train, sets.other_rows))

    def of(x: torch.Tensor) -> Estimate:
        return mean((shapes(x) @ table.T).amax(1).numpy())

    reserve = sets.sets["reserve"]
    floor = mean((table @ table.T).fill_diagonal_(-1).amax(1).numpy()) if sets.few else of(reserve)
    noise = sets.study.rng.normal("likeness/noise", torch.arange(len(reserve)), tuple(reserve.shape[1:]))
    return [of(sets.sets["fake"]).score("likeness", "higher", floor.value, of(noise).value)]


# --------------------------------------------------------------------------- conditions


def conditional_accuracy(evidence: Evidence) -> list[Score]:
    """How often an independent classifier predicts the requested label.

    Floor: on held-out images. Control: the same predictions against shuffled requests.
    """
    study = study_of(evidence)
    sets = image_sets_of(study)
    sets.need_enough()
    parts = label_parts(study.conds)
    out: list[Score] = []
    for part, classes in parts.items():
        name = "conditional_accuracy" if len(parts) == 1 else f"conditional_accuracy/{part}"
        classifier = _classifier(study, part, classes)
        heldout = study.heldout.cond.select(sets.real_rows)
        floor = _agreement(classifier.labels(sets.heldout), heldout, part)
        if floor is None:
            raise Unmeasurable(f"no held-out item has the label {part}")
        predicted = classifier.labels(sets.fakes)
        own = _agreement(predicted, study.drawn.cond, part)
        if own is None:
            raise Unmeasurable(f"no sample was requested with a {part}")
        order = torch.argsort(study.rng.bits("conditional_accuracy/shuffle", torch.arange(len(predicted))))
        shuffled = _agreement(predicted, study.drawn.cond.select(order), part)
        out.append(own.score(name, "higher", floor.value, shuffled.value if shuffled else None))
        trivial = _agreement(classifier.labels(sets.sets["gaussian"]), sets.gaussian_cond, part)
        if trivial is not None and part == next(iter(parts)):
            out.append(trivial.score(f"{name}/pixel_gaussian", "higher", floor.value))
    return out


def _classifier(study: Study, part: str, classes: int) -> LabelClassifier:
    def train() -> LabelClassifier:
        sets = image_sets_of(study)
        rows = torch.cat([sets.reserve_rows, sets.other_rows])[:MAX_TRAIN]
        x, cond = images_of(study.train, rows), study.train.cond.select(rows)

        def affordable(steps: int, work: Callable[[], object]) -> int:
            study.effort.report(f"a classifier of {part} learns")
            return study.effort.affordable(steps, LEAST_STEPS, CLASSIFIER, work)

        return train_label_classifier(f"judge_{part}", x, cond, part, classes, study.rng, study.folder, affordable)

    classifier = study.once(f"classifier/{part}", train)
    study.judges[classifier.name] = classifier.hash
    return classifier


def _agreement(predicted: torch.Tensor, requested: Cond, part: str) -> Estimate | None:
    """The share of requests with a label whose prediction is that label; None if no request has one."""
    present = requested.present[part].cpu()
    if not present.any():
        return None
    right = predicted[present] == requested.parts[part].cpu()[present]
    return share(int(right.sum()), int(present.sum()))


# --------------------------------------------------------------------------- copies


class NearestTraining:
    """Distances of every set to the nearest training images, in pixels and in features.

    The nearest of the reserve are searched among all other training images, and compared with held-out images whose
    nearest are searched among the same. For all other sets, all training images are searched. With few images, the
    nearest of a training image is another one, and held-out ones are followed by them.
    """

    def __init__(self, sets: ImageSets) -> None:
        self.sets = sets
        size, side = sets.study.train.x[0].numel() * len(sets.study.train), min(sets.study.train.x.shape[2:])
        self.factor = 1
        while size / self.factor**2 > MAX_VALUES and self.factor < side:
            self.factor *= 2
        if self.factor > 1:
            sets.study.note(
                f"nearest {sets.study.things} are searched among means of {self.factor} x {self.factor} values"
            )

    def _table(self, where: str) -> Array:
        """The training images as vectors (N, D); the reserve comes last."""
        s = self.sets
        rows = s.other_rows if s.few else torch.cat([s.other_rows, s.reserve_rows])
        table: Array | None = None
        for place, part in zip(torch.arange(len(rows)).split(CHUNK), rows.split(CHUNK), strict=True):
            vectors = self._vectors(where, images_of(s.study.train, part))
            table = np.empty((len(rows), vectors.shape[1]), vectors.dtype) if table is None else table
            table[place[0] : place[-1] + 1] = vectors
        assert table is not None
        return table

    def _vectors(self, where: str, x: torch.Tensor) -> Array:
        if where == "features":
            return self.sets.encoder("domain").features(x)
        flat = F.avg_pool2d(x, self.factor).flatten(1) if self.factor > 1 else x.flatten(1)
        return flat.numpy()  # float32: small, and exact for 8-bit images; distances are computed in float64

    def distances(self, where: str, which: str, reserve: bool = True) -> Array:
        """Distances (m,) of one set in "pixels" or "features"; `fake` means all n samples, `real` all held-out images.
        `reserve`: whether the reserve is searched as well."""
        s = self.sets
        larger = {"fake": s.fakes, "real": s.heldout}
        table = s.study.once(f"training/{where}", lambda: self._table(where))
        table = table if reserve else table[: len(s.other_rows)]
        x = larger[which] if which in larger else s.sets[which]

        def search() -> Array:
            if not s.few or which not in ("real", "reserve"):
                return nearest(self._vectors(where, x), table)
            others = d.neighbour_radius(table, 1)
            return np.concatenate([nearest(self._vectors(where, x), table), others]) if which == "real" else others

        return s.study.once(f"nearest/{where}/{which}/{reserve}", search)


def nearest_training(sets: ImageSets) -> NearestTraining:
    """The nearest training images of image sets, searched once."""
    return sets.study.once("nearest training", lambda: NearestTraining(sets))


def _nearest_scores(
    evidence: Evidence, name: str, better: Better, statistic: Callable[[Array, Array], Estimate]
) -> list[Score]:
    sets = image_sets_of(study_of(evidence))
    near = nearest_training(sets)
    out: list[Score] = []
    for where, label in (("pixels", name), ("features", f"{name}/features"))[: 1 if sets.few else 2]:
        floor = statistic(near.distances(where, "reserve", False), near.distances(where, "real", False)).value
        heldout = near.distances(where, "real")
        control = statistic(near.distances(where, "copies"), heldout).value
        out.append(statistic(near.distances(where, "fake"), heldout).score(label, better, floor, control))
        if where == "pixels" and not sets.few:  # else blurred training images would be nearest to themselves
            out.append(
                statistic(near.distances(where, "blurred"), heldout).score(f"{name}/blurred", better, floor, control)
            )
    return out


def copies(evidence: Evidence) -> list[Score]:
    """Share of samples that are near copies of training images, and of those that are much nearer than is usual.

    The first is about 1% for a perfect model, but says nothing of data with duplicates, where held-out images are near
    copies as well, nor of a few images. Floor of the second: the share of held-out images.
    """
    sets = image_sets_of(study_of(evidence))
    scores = [] if sets.few else _nearest_scores(evidence, "near_copies", "lower", near_copies)
    near = nearest_training(sets)
    fake, real, copied = (near.distances("pixels", which) for which in ("fake", "real", "copies"))
    floor, control = close_copies(real, real).value, close_copies(copied, real).value
    return [*scores, close_copies(fake, real).score("close_copies", "lower", floor, control)]


def ratio(evidence: Evidence) -> list[Score]:
    """Median distance of samples to the nearest training image, relative to that of held-out images."""
    seed = study_of(evidence).rng.seed % 2**32

    def statistic(samples: Array, heldout: Array) -> Estimate:
        try:
            return nearest_ratio(samples, heldout, seed)
        except ValueError as error:
            raise Unmeasurable(str(error)) from error

    return _nearest_scores(evidence, "nearest_ratio", "none", statistic)


WORDS = read_words(__file__)
BESIDE = {
    "pixel_gaussian": "of a trivial model",
    "random_net": "in a random network",
    "pixel_pca": "in main components of values",
    "pixels": "in values",
    "features": "in features",
    "blurred": "of blurred real ones",
}
METRICS: tuple[Metric, ...] = tuple(
    replace(metric, words=WORDS, beside=BESIDE)
    for metric in (
        _distance_metric("frechet", d.frechet, brief=False),
        _distance_metric("kid", d.kid, brief=True),
        _pair_metric("precision", 0, d.precision_recall, "precision_recall", 3),
        _pair_metric("recall", 1, d.precision_recall, "precision_recall", 3),
        _pair_metric("density", 0, d.density_coverage, "density_coverage", 5),
        _pair_metric("coverage", 1, d.density_coverage, "density_coverage", 5),
        Metric("two_sample", image_space, two_sample),
        Metric("variety", image_space, variety, brief=True),
        Metric("likeness", image_space, likeness, brief=True, judge=judge_images),
        Metric("conditional_accuracy", labelled_space, conditional_accuracy),
        Metric("near_copies", image_space, copies, brief=True),
        Metric("nearest_ratio", image_space, ratio),
    )
)
