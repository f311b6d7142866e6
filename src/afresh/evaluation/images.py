"""Metrics of pictures, and of sounds by their spectra. Every distance stands between three others: real pictures,
copies and a trivial model.

`floor` is what training pictures unseen by the encoders score (a perfect model); `control` is what copies of
training pictures score. Copies do well at every distance, which is why `near_copies` stands beside. The
trivial model's score is a row of its own, `NAME/pixel_gaussian`: a distance near that says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from afresh.core import Cond, CondSpec, Evidence, ItemKind, Metric, Score, Space
from afresh.evaluation import distribution as d
from afresh.evaluation.classifier import Judge, train_judge
from afresh.evaluation.encoders import label_parts
from afresh.evaluation.estimate import Array, Estimate, share
from afresh.evaluation.gallery import MOST, Gallery, gallery_of, pictures
from afresh.evaluation.memorisation import near_copies, nearest, nearest_ratio
from afresh.evaluation.study import Study, Unmeasurable, study_of

Better = Literal["lower", "higher", "none"]
MOST_PIXELS = 200_000_000  # numbers of the training pictures among which copies are looked for
CROSS_CHECKS = ("random_net", "pixel_pca")


def picture_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for pictures (C, H, W) and for sounds; else why not."""
    if space.kind == "field" and (len(space.shape) == 3 or (space.timed and len(space.shape) == 2)):
        return None
    return f"measures pictures and sounds, fields of shape (C, H, W), not {space.kind} of shape {space.shape}"


def labelled_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    reason = picture_space(kind, space, conds)
    if reason is None and not label_parts(conds):
        return "needs a label with at least two classes in the data"
    return reason


def _beside(
    name: str, gallery: Gallery, better: Better, statistic: Callable[[str], Estimate], gaussian: bool = True
) -> list[Score]:
    """A statistic of the set `fake` beside its floor and control, and the trivial model's in its own row."""
    floor, control = statistic("reserve").value, statistic("copies").value
    own = statistic("fake")
    gallery.study.note(own.note and f"{name}: {own.note}")
    out = [own.score(name, better, floor, control)]
    if gaussian:
        out.append(statistic("gaussian").score(f"{name}/pixel_gaussian", better, floor, control))
    return out


def frechet(evidence: Evidence) -> list[Score]:
    gallery = gallery_of(study_of(evidence))

    def of(encoder: str) -> Callable[[str], Estimate]:
        return lambda which: d.frechet(gallery.features(encoder, which), gallery.features(encoder, "real"))

    out = _beside("frechet", gallery, "lower", of("domain"))
    for encoder in CROSS_CHECKS:
        out += _beside(f"frechet/{encoder}", gallery, "lower", of(encoder), gaussian=False)
    return out


def kid(evidence: Evidence) -> list[Score]:
    gallery = gallery_of(study_of(evidence))

    def of(encoder: str) -> Callable[[str], Estimate]:
        return lambda which: d.kid(gallery.features(encoder, which), gallery.features(encoder, "real"))

    out = _beside("kid", gallery, "lower", of("domain"))
    fake, real = gallery.features("domain", "fake"), gallery.features("domain", "real")
    middle, spread = d.kid_subsets(fake, real, gallery.study.rng.seed)
    gallery.study.note("kid/subsets: mean over 50 random subsets, with one standard deviation to either side")
    out.append(Score("kid/subsets", middle, middle - spread, middle + spread, gallery.m, "lower"))
    for encoder in CROSS_CHECKS:
        out += _beside(f"kid/{encoder}", gallery, "lower", of(encoder), gaussian=False)
    return out


Pair = tuple[Estimate, Estimate]


def _one_of_two(name: str, place: int, pair: Callable[[Array, Array], Pair], key: str) -> Metric:
    """A metric from a function of (real, fake) that gives two, computed once for both."""

    def compute(evidence: Evidence) -> list[Score]:
        study = study_of(evidence)
        gallery = gallery_of(study)

        def statistic(which: str) -> Estimate:
            real, fake = gallery.features("domain", "real"), gallery.features("domain", which)
            return study.once(f"{key}/{which}", lambda: pair(real, fake))[place]

        return _beside(name, gallery, "higher", statistic)

    return Metric(name, picture_space, compute)


def two_sample(evidence: Evidence) -> list[Score]:
    gallery = gallery_of(study_of(evidence))
    seed = gallery.study.rng.seed % 2**32

    def of(test: Callable[[Array, Array, int], Estimate], encoder: str) -> Callable[[str], Estimate]:
        return lambda which: test(gallery.features(encoder, which), gallery.features(encoder, "real"), seed)

    what = f"held-out {gallery.study.things}"
    gallery.study.note(f"two_sample: 0.5 = cannot be told from {what}, 1 = always; below 0.5 = copying")
    return [
        *_beside("two_sample", gallery, "lower", of(d.two_sample_linear, "domain")),
        *_beside("two_sample/neighbour", gallery, "lower", of(d.two_sample_neighbour, "domain"), gaussian=False),
        *_beside("two_sample/mlp_pixels", gallery, "lower", of(d.two_sample_mlp, "pixel_pca"), gaussian=False),
    ]


# --------------------------------------------------------------------------- asked for and got


def conditional_accuracy(evidence: Evidence) -> list[Score]:
    """How often an independent classifier finds the label asked for; floor: on real held-out pictures.

    control: the same answers against shuffled requests.
    """
    study = study_of(evidence)
    gallery = gallery_of(study)
    parts = label_parts(study.conds)
    out: list[Score] = []
    for part, classes in parts.items():
        name = "conditional_accuracy" if len(parts) == 1 else f"conditional_accuracy/{part}"
        judge = _judge(study, part, classes)
        held = study.heldout.cond.select(gallery.real_rows)
        floor = _agreement(judge.labels(gallery.held), held, part)
        if floor is None:
            raise Unmeasurable(f"none of the held-out {study.things} has the label {part}")
        got = judge.labels(gallery.fakes)
        own = _agreement(got, study.drawn.cond, part)
        if own is None:
            raise Unmeasurable(f"no sample was asked for a {part}")
        order = torch.argsort(study.rng.bits("conditional_accuracy/shuffle", torch.arange(len(got))))
        shuffled = _agreement(got, study.drawn.cond.select(order), part)
        out.append(own.score(name, "higher", floor.value, shuffled.value if shuffled else None))
        trivial = _agreement(judge.labels(gallery.sets["gaussian"]), gallery.gaussian_cond, part)
        if trivial is not None and part == next(iter(parts)):
            out.append(trivial.score(f"{name}/pixel_gaussian", "higher", floor.value))
    return out


def _judge(study: Study, part: str, classes: int) -> Judge:
    def make() -> Judge:
        gallery = gallery_of(study)
        rows = torch.cat([gallery.reserve_rows, gallery.other_rows])[:MOST]
        x, cond = pictures(study.train, rows), study.train.cond.select(rows)
        return train_judge(f"judge_{part}", x, cond, part, classes, study.rng, study.folder)

    judge = study.once(f"judge/{part}", make)
    study.judges[judge.name] = judge.hash
    return judge


def _agreement(got: torch.Tensor, asked: Cond, part: str) -> Estimate | None:
    said = asked.present[part].cpu()
    if not said.any():
        return None
    right = got[said] == asked.parts[part].cpu()[said]
    return share(int(right.sum()), int(said.sum()))


# --------------------------------------------------------------------------- copies


class Nearness:
    """Distances of every set to the nearest training picture, in pixels and in features.

    The reserve is searched for among all other training pictures, and judged by held-out pictures searched for
    among the same; everything else is searched for among all training pictures.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        size, side = gallery.study.train.x[0].numel() * len(gallery.study.train), min(gallery.study.train.x.shape[2:])
        self.factor = 1
        while size / self.factor**2 > MOST_PIXELS and self.factor < side:
            self.factor *= 2
        if self.factor > 1:
            what = f"nearest {gallery.study.things} are looked for among means"
            gallery.study.note(f"{what} of {self.factor} x {self.factor} values")

    def _table(self, where: str, whole: bool) -> Array:
        g = self.gallery
        rows = torch.cat([g.other_rows, g.reserve_rows]) if whole else g.other_rows
        return np.concatenate([self._see(where, pictures(g.study.train, part)) for part in rows.split(4096)])

    def _see(self, where: str, x: torch.Tensor) -> Array:
        if where == "features":
            return self.gallery.encoder("domain").features(x)
        flat = F.avg_pool2d(x, self.factor).flatten(1) if self.factor > 1 else x.flatten(1)
        return flat.numpy()  # float32: kept small, and exact for 8-bit pictures; distances are in float64

    def of(self, where: str, which: str, whole: bool = True) -> Array:
        """(m,) for one set; `fake` means all n samples, `real` all held-out pictures."""
        g = self.gallery
        sets = {"fake": g.fakes, "real": g.held}
        table = g.study.once(f"nearness/{where}/{whole}", lambda: self._table(where, whole))
        x = sets[which] if which in sets else g.sets[which]
        return g.study.once(f"nearest/{where}/{which}/{whole}", lambda: nearest(self._see(where, x), table))


def _nearness(
    evidence: Evidence, name: str, better: Better, statistic: Callable[[Array, Array], Estimate]
) -> list[Score]:
    gallery = gallery_of(study_of(evidence))
    near = gallery.study.once("nearness", lambda: Nearness(gallery))
    out: list[Score] = []
    for where, label in (("pixels", name), ("features", f"{name}/features")):
        floor = statistic(near.of(where, "reserve", False), near.of(where, "real", False)).value
        held = near.of(where, "real")
        control = statistic(near.of(where, "copies"), held).value
        out.append(statistic(near.of(where, "fake"), held).score(label, better, floor, control))
        if where == "pixels":
            out.append(statistic(near.of(where, "blurred"), held).score(f"{name}/blurred", better, floor, control))
    return out


def copies(evidence: Evidence) -> list[Score]:
    return _nearness(evidence, "near_copies", "lower", near_copies)


def ratio(evidence: Evidence) -> list[Score]:
    seed = study_of(evidence).rng.seed % 2**32

    def statistic(samples: Array, held: Array) -> Estimate:
        try:
            return nearest_ratio(samples, held, seed)
        except ValueError as why:
            raise Unmeasurable(str(why)) from why

    return _nearness(evidence, "nearest_ratio", "none", statistic)


METRICS: tuple[Metric, ...] = (
    Metric("frechet", picture_space, frechet),
    Metric("kid", picture_space, kid),
    _one_of_two("precision", 0, d.precision_recall, "precision_recall"),
    _one_of_two("recall", 1, d.precision_recall, "precision_recall"),
    _one_of_two("density", 0, d.density_coverage, "density_coverage"),
    _one_of_two("coverage", 1, d.density_coverage, "density_coverage"),
    Metric("two_sample", picture_space, two_sample),
    Metric("conditional_accuracy", labelled_space, conditional_accuracy),
    Metric("near_copies", picture_space, copies),
    Metric("nearest_ratio", picture_space, ratio),
)
