"""Exact and near duplicates among items of any kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afresh.core import Item, ItemKind, NearDuplicate
from afresh.core.item_kind import Array

NEARLY = 0.98  # similarity by features (1 - root mean square difference) from which items are near duplicates
CHUNK = 512  # rows that are compared at a time


def near_duplicates(items: Sequence[Item], kind: ItemKind) -> list[NearDuplicate]:
    """Items that are nearly or exactly equal to an earlier one, by the search of their kind or else by its features."""
    values = [item.value for item in items]
    if kind.near_duplicates is not None:
        pairs = kind.near_duplicates(values)
    else:
        pairs = [] if kind.features is None or not values else near_rows(kind.features(values))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def near_rows(features: Array) -> list[NearDuplicate]:
    """Rows of features (n, D) whose root mean square difference from an earlier row is at most 1 - NEARLY. All pairs
    are compared: n^2 / 2 products of D numbers."""
    square = np.square(features).sum(1)
    pairs = []
    for start in range(0, len(features), CHUNK):
        rows = features[start : start + CHUNK]
        mean = (square[start : start + CHUNK, None] + square - 2 * rows @ features.T).clip(0) / features.shape[1]
        for second, differences in enumerate(mean, start):
            near = np.flatnonzero(differences[:second] <= (1 - NEARLY) ** 2)
            if len(near):
                difference = float(np.square(features[near[0]] - features[second]).mean()) ** 0.5  # without rounding
                pairs.append(NearDuplicate(int(near[0]), second, 1 - difference))
    return pairs
