"""The diversity of a set of samples: a number from 0 (all equal) to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

GRAM = 4  # characters: long enough for words and their endings, in any script


def diversity(values: Sequence[Any]) -> float:
    """Diversity of texts or images; 0 for fewer than two samples.

    For texts, the share of distinct ones among all runs of GRAM characters (distinct-n: Li et al. 2016, on characters).
    For images, the root mean squared difference of two images, where 1 is black against white. Depends on the number of
    samples and on their length: compare sets of equal size.
    """
    if len(values) < 2:
        return 0.0
    if isinstance(values[0], str):
        grams = [v[i : i + GRAM] for v in values for i in range(max(1, len(v) - GRAM + 1))]
        return len(set(grams)) / len(grams)
    x = np.stack([np.asarray(v, np.float64).ravel() / 255 for v in values])
    centred = x - x.mean(0)
    # The mean over pairs of |a - b|^2 is 2 n / (n - 1) times the mean squared distance from the mean.
    return float(np.sqrt(2 * np.mean(np.square(centred)) * len(x) / (len(x) - 1)))
