"""What the features of items say, as vectors in which items that are alike are near one another.

A feature is a word of a column (Catalogue.words). Features that describe the same items get vectors that are near one
another: the leading directions of the table of items and features (latent semantic analysis: Deerwester et al. 1990).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from afresh.data.interactions.catalogue import Catalogue

Floats = NDArray[np.float32]
DIRECTIONS = 128  # of the vectors, where there are more features


@dataclass(frozen=True, eq=False)
class FeatureVectors:
    """W features by name, and a vector of each (W, D): its direction, times the logarithm of how rare it is."""

    names: tuple[str, ...]
    vectors: Floats

    @cached_property
    def index(self) -> Mapping[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def of(self, catalogue: Catalogue) -> Floats:
        """Vectors of length 1 of the items of a catalogue, (V, D); 0 where no feature of an item is known."""
        out = np.zeros((len(catalogue), self.vectors.shape[1]), dtype=np.float32)
        for i, name in zip(*catalogue.words, strict=True):
            if (word := self.index.get(name)) is not None:
                out[i] += self.vectors[word]
        return unit(out)


def unit(rows: Floats) -> Floats:
    """Rows of length 1; those of length 0 stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def fit_features(catalogue: Catalogue, seed: int = 0) -> FeatureVectors:
    """The features of a catalogue that has some, by its items that were chosen in training."""
    from scipy import sparse
    from sklearn.decomposition import TruncatedSVD

    table, names = catalogue.table
    table = table[catalogue.counts > 0]
    rarity = np.log(table.shape[0] / np.maximum(np.asarray(table.sum(0)).ravel(), 1)).astype(np.float32)
    if len(names) <= DIRECTIONS:
        return FeatureVectors(names, np.diag(rarity))
    weighted = table @ sparse.diags(rarity)
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    weighted = sparse.diags(1 / np.where(length > 0, length, 1)) @ weighted
    found = TruncatedSVD(min(DIRECTIONS, table.shape[0]), random_state=seed).fit(weighted)
    return FeatureVectors(names, np.asarray(rarity[:, None] * found.components_.T, np.float32))


def beside(vectors: Floats, near: NDArray[np.int32], weight: Floats) -> Floats:
    """Vectors in which an item without features has the mean of its neighbours (V, K), by their weights (V, K)."""
    out = vectors.copy()
    for i in np.flatnonzero(~vectors.any(1)).tolist():
        out[i] = weight[i] @ vectors[near[i]]
    return unit(out)
