"""Metrics of items of any kind, by the features that their kind brings.

Kinds for which more is known (texts, images, sounds) bring no features and have metrics of their own.
"""

from __future__ import annotations

import numpy as np
import torch

from afresh.core import CondSpec, Evidence, ItemKind, Metric, Score, Space
from afresh.core.item_kind import Array
from afresh.evaluation.distribution import kid
from afresh.evaluation.diversity import difference
from afresh.evaluation.estimate import share
from afresh.evaluation.memorisation import near_copies, nearest
from afresh.evaluation.study import Study, Unmeasurable, study_of

MOST = 20_000  # training items that samples are compared with
LEAST = 4  # items that a distance between two sets needs on either side


def with_features(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for kinds that bring features; else why not."""
    return None if kind.features is not None else f"measures features of items, which {kind.plural} have none of"


class Table:
    """Features (n, D) of the samples, of held-out items and of training items, both in random order."""

    def __init__(self, study: Study) -> None:
        def rows(purpose: str, values: list[object]) -> Array:
            order = torch.argsort(study.rng.bits(purpose, torch.arange(len(values))))[:MOST].tolist()
            return features([values[i] for i in order])

        features = study.kind.features
        assert features is not None
        self.samples = features(study.drawn.values)
        self.heldout = rows("items/heldout", [i.value for i in study.heldout_items])
        self.train = rows("items/train", [i.value for i in study.train_items])
        if min(map(len, (self.samples, self.heldout, self.train))) < LEAST:
            raise Unmeasurable(f"needs at least {LEAST} samples, held-out items and training items")
        study.reference_size = len(self.heldout)


def table_of(study: Study) -> Table:
    return study.once("items", lambda: Table(study))


def validity(evidence: Evidence) -> list[Score]:
    """Share of samples that the encoder accepts. Floor: of held-out items."""
    study = study_of(evidence)
    values, real = study.drawn.values, [i.value for i in study.heldout_items]
    floor = share(sum(map(study.valid, real)), len(real)).value
    return [share(sum(map(study.valid, values)), len(values)).score("items_valid", "higher", floor)]


def distance(evidence: Evidence) -> list[Score]:
    """Kernel distance of samples to held-out items, in features. Floor: as many training items to held-out ones.
    Control: held-out items to features that are drawn independently of one another from those of training items."""
    table = table_of(study_of(evidence))
    generator, n = np.random.default_rng(0), len(table.samples)
    columns = (column[generator.integers(0, len(column), n)] for column in table.train.T)
    floor, control = (kid(x, table.heldout).value for x in (table.train[:n], np.stack(list(columns), 1)))
    return [kid(table.samples, table.heldout).score("items_kid", "lower", floor, control)]


def variety(evidence: Evidence) -> list[Score]:
    """Root mean square difference of two samples, in features. Floor: of two held-out items."""
    table = table_of(study_of(evidence))
    floor = difference(table.heldout)
    return [Score("items_diversity", difference(table.samples), None, None, len(table.samples), "none", floor)]


def copies(evidence: Evidence) -> list[Score]:
    """Share of samples nearer to a training item than 99% of held-out items are, in features. Control: of training
    items themselves."""
    table = table_of(study_of(evidence))
    of_heldout = nearest(table.heldout, table.train)
    control = near_copies(np.zeros(len(table.train)), of_heldout).value
    own = near_copies(nearest(table.samples, table.train), of_heldout)
    return [own.score("items_near_copies", "lower", None, control)]


METRICS: tuple[Metric, ...] = (
    Metric("items_valid", with_features, validity),
    Metric("items_distance", with_features, distance),
    Metric("items_diversity", with_features, variety),
    Metric("items_near_copies", with_features, copies),
)
