"""Metrics of items whose kind defines features.

Texts, images and sounds define none, since they have more specific metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from afresh.core import (
    CondSpec,
    Evidence,
    Item,
    ItemKind,
    Judgement,
    Metric,
    Question,
    Score,
    ScoreWords,
    Space,
)
from afresh.engine.evaluation.distribution import kid
from afresh.engine.evaluation.diversity import difference
from afresh.engine.evaluation.estimate import share
from afresh.engine.evaluation.memorisation import near_copies, nearest
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of
from afresh.engine.evaluation.verdict import ALIKE, COPIED, NEAR, SHAPED, beside, place, share_of_floor

MAX_ITEMS, BRIEF_ITEMS = 20_000, 4_000  # training or held-out items that samples are compared with, the second with a
# limit of seconds
MAX_SAMPLES = 1_000  # that are compared
MIN_ITEMS = 4  # in each of two sets between which a distance is estimated
VALID = 0.5  # noise: the share of valid items is below this share of its floor


def with_features(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for kinds that define features, else the reason why not."""
    return None if kind.features is not None else f"measures features of items, which {kind.plural} do not define"


class FeatureSets:
    """Features (n, D) of the samples, and of held-out and training items in random order."""

    def __init__(self, study: Study) -> None:
        features = study.kind.features
        assert features is not None
        heldout, train = (self._shuffled(study, items) for items in (study.heldout_items, study.train_items))
        self.samples, self.heldout, self.train = (
            features(x) for x in (study.drawn.values[:MAX_SAMPLES], heldout, train)
        )
        if min(map(len, (self.samples, self.heldout, self.train))) < MIN_ITEMS:
            raise Unmeasurable(f"needs at least {MIN_ITEMS} samples, held-out items and training items")
        study.reference_size = len(self.heldout)

    @staticmethod
    def _shuffled(study: Study, items: Sequence[Item]) -> list[Any]:
        most = BRIEF_ITEMS if study.limited else MAX_ITEMS
        order = torch.argsort(study.rng.bits("items", torch.arange(len(items))))
        return [items[i].value for i in order[:most].tolist()]


def feature_sets_of(study: Study) -> FeatureSets:
    """The sets of a study, computed once."""
    return study.once("items", lambda: FeatureSets(study))


def validity(evidence: Evidence) -> list[Score]:
    """Share of valid samples. Floor: the share of valid held-out items."""
    study = study_of(evidence)
    values, real = study.drawn.values, [i.value for i in study.heldout_items]
    floor = share(sum(map(study.valid, real)), len(real)).value
    return [share(sum(map(study.valid, values)), len(values)).score("items_valid", "higher", floor)]


def distance(evidence: Evidence) -> list[Score]:
    """Kernel distance between the features of samples and of held-out items.

    Floor: between training and held-out items. Control: between held-out items and independent features, each drawn
    from its distribution over training items.
    """
    sets = feature_sets_of(study_of(evidence))
    generator, n = np.random.default_rng(0), len(sets.samples)
    columns = (column[generator.integers(0, len(column), n)] for column in sets.train.T)
    floor, control = (kid(x, sets.heldout).value for x in (sets.train[:n], np.stack(list(columns), 1)))
    return [kid(sets.samples, sets.heldout).score("items_kid", "lower", floor, control)]


def items_diversity(evidence: Evidence) -> list[Score]:
    """Root mean squared difference between the features of two samples. Floor: that of two held-out items."""
    sets = feature_sets_of(study_of(evidence))
    floor = difference(sets.heldout)
    return [Score("items_diversity", difference(sets.samples), None, None, len(sets.samples), "none", floor)]


def copies(evidence: Evidence) -> list[Score]:
    """Share of samples whose features are nearer to a training item than those of 99% of held-out items. Control: the
    share of training items."""
    sets = feature_sets_of(study_of(evidence))
    of_heldout = nearest(sets.heldout, sets.train)
    control = near_copies(np.zeros(len(sets.train)), of_heldout).value
    own = near_copies(nearest(sets.samples, sets.train), of_heldout)
    return [own.score("items_near_copies", "lower", None, control)]


def judge_items(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on items that are compared by features of their own; None without their distance."""
    if "items_kid" not in scores:
        return None
    spread = share_of_floor(scores.get("items_diversity"))
    if spread < ALIKE:
        return "collapsed", f"The {plural} are nearly all alike: they differ {spread:.0%} as much as real ones."
    near = place(scores["items_kid"])
    valid = share_of_floor(scores.get("items_valid"))
    if near is None:
        return None
    copies, numbers = scores.get("items_near_copies"), f"(KID {beside(scores['items_kid'], 'independent parts')})"
    if valid < VALID or near < SHAPED:
        return "noise", f"The {plural} are like ones whose parts were drawn independently {numbers}."
    if copies is not None and copies.value > COPIED:
        return "memorised", f"{copies.value:.0%} of the {plural} are near copies of training {plural}."
    if near > 1 - NEAR and valid > 0.9:
        return "good", f"The {plural} are close to real ones that the model has not seen, and as varied {numbers}."
    return "recognisable", f"The {plural} resemble real ones, and can be told from them {numbers}."


WORDS = {
    "items_kid": ScoreWords(
        "distance of the whole set (KID)", "How far samples are from held-out items as a set.", Question.REAL
    ),
    "items_valid": ScoreWords("valid items", "The share of samples that are valid.", Question.FOLLOWS),
    "items_diversity": ScoreWords("distance between samples", "How much two samples differ.", Question.VARIED),
    "items_near_copies": ScoreWords(
        "near copies of training items",
        "The share of samples nearer to a training item than 99% of held-out ones.",
        Question.COPIED,
    ),
}
METRICS: tuple[Metric, ...] = (
    Metric("items_valid", with_features, validity, brief=True, words=WORDS),
    Metric("items_distance", with_features, distance, brief=True, words=WORDS, judge=judge_items),
    Metric("items_diversity", with_features, items_diversity, brief=True, words=WORDS),
    Metric("items_near_copies", with_features, copies, brief=True, words=WORDS),
)
