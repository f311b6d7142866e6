"""The diversity of a set of samples: a number from 0 (all equal) to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from afresh.core import ItemKind
from afresh.core.item_kind import Array


def diversity(kind: ItemKind, values: Sequence[Any], fields: Tensor) -> float:
    """Diversity of decoded samples; 0 for fewer than two.

    It is the measure of their kind, if it has one. Otherwise it is the root mean square difference of two samples: of
    the fields (B, ...) in [-1, 1] that they were decoded from, where the difference of the lowest and the highest value
    is 1, or of their features. For items without either, it is the share of distinct ones. It depends on the number of
    samples and on their length, so compare sets of equal size.
    """
    if len(values) < 2:
        return 0.0
    if kind.diversity is not None:
        return kind.diversity(values)
    if fields.is_floating_point():
        return difference((fields.double().clamp(-1, 1).flatten(1).numpy() + 1) / 2)
    if kind.features is not None:
        return difference(kind.features(values))
    return len(set(map(kind.digest, values))) / len(values)


def difference(rows: Array) -> float:
    """The root mean square difference of two of at least two rows (n, D)."""
    centred = rows - rows.mean(0)
    # The mean over pairs of |a - b|^2 is 2 n / (n - 1) times the mean squared distance from the mean.
    return float(np.sqrt(2 * np.mean(np.square(centred)) * len(rows) / (len(rows) - 1)))
