"""How different a model's samples are from one another: one number between 0 and 1 a set of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

GRAM = 4  # characters: words and their endings, in any script


def diversity(values: Sequence[Any]) -> float:
    """Of texts the share of distinct ones among runs of GRAM characters (distinct-n: Li et al. 2016, of characters);
    of pictures the root mean squared difference of two of them, 1 being black against white. 0 for fewer than two.

    It depends on how many samples there are and on their length: compare sets of equal size.
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
