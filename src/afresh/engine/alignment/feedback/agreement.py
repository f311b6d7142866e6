"""Agreement of raters: raw agreement, Krippendorff's alpha, and the majority of votes.

All measures are functions of one table of counts: how often two categories were given to the same item. Intervals are
from the 2.5% to the 97.5% quantile of the bootstrap over items (Efron 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.core import Score, UserError
from afresh.engine.alignment.feedback.preferences import FIRST, SECOND, Pair, Vote

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]  # counts (..., K, K) -> (...), NaN if it is not defined

RESAMPLES = 2000  # of the bootstrap
MAX_COUNTS = 1 << 22  # counts in memory while resampling


@dataclass(frozen=True)
class VoteTable:
    """Judgements (N, R) of N items by R raters: a category from 0, or -1 if a rater did not judge an item.

    With `sides`, categories 0 and 1 are the two sides of a pair. Their order is arbitrary, so every item counts half in
    the given order and half in the other, which makes agreement independent of the order.
    """

    values: NDArray[np.int64]
    raters: tuple[str, ...] = ()
    sides: bool = False

    @property
    def categories(self) -> int:
        return max(int(self.values.max(initial=0)) + 1, 3 if self.sides else 2)


def table_of(votes: Iterable[Vote]) -> VoteTable:
    """The table with pairs as items, in the order of their first votes; raters are sorted by name."""
    # The latest judgement of each rater for every pair.
    judged: dict[Pair, dict[str | None, int]] = {}
    for vote in votes:
        judged.setdefault(vote.pair, {})[vote.rater] = vote.judgement
    raters = sorted({r for by_rater in judged.values() for r in by_rater}, key=lambda r: (r is not None, r))
    values = np.array([[by_rater.get(r, -1) for r in raters] for by_rater in judged.values()], dtype=np.int64)
    return VoteTable(values.reshape(len(judged), len(raters)), tuple(r or "" for r in raters), sides=True)


# --------------------------------------------------------------------------- counts and statistics


def _balanced(counts: Array) -> Array:
    """The mean of counts (..., K, K) and of the same counts with categories 0 and 1 exchanged."""
    order = [SECOND, FIRST, *range(2, counts.shape[-1])]
    return (counts + counts[..., order, :][..., order]) / 2


def coincidences(table: VoteTable) -> Array:
    """How often two raters gave categories c and k to an item, (N, K, K) (Krippendorff 2011, C).

    Each ordered pair of the item's m judgements counts 1 / (m - 1), so that the weight of an item is its number of
    judgements, and an item with one judgement has none.
    """
    k = table.categories
    counts = (table.values[:, :, None] == np.arange(k)).sum(1).astype(np.float64)  # (N, K)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(k)
    out = pairs / np.maximum(counts.sum(1) - 1, 1)[:, None, None]
    return _balanced(out) if table.sides else out


def observed(counts: Array) -> Array:
    """The share of agreeing judgements."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


def alpha_of(counts: Array) -> Array:
    """1 - D_o / D_e for nominal categories (Krippendorff 2011, C). D_e is the disagreement of judgements that are
    assigned to items at random."""
    n_c = counts.sum(-1)
    n = n_c.sum(-1)
    expected = 1 - (n_c * (n_c - 1)).sum(-1) / (n * (n - 1))
    # If all judgements are equal, the expected disagreement is 0 and alpha is not defined.
    varied = n_c.max(-1) < n * (1 - 1e-12)
    return 1 - (1 - observed(counts)) / np.where(varied & (expected > 0), expected, np.nan)


def _score(name: str, counts: Array, statistic: Statistic, seed: int) -> Score:
    """A statistic of the sum over items of counts (N, K, K), with its interval. Resamples in which it is not defined
    are ignored. Raises UserError if it is not defined for the sum."""
    counts = counts[counts.sum((1, 2)) > 0]
    n, k = len(counts), counts.shape[-1]
    if n == 0:
        raise UserError(
            "No item was judged by two raters, so agreement cannot be measured. Let two raters judge the same items."
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(counts.sum(0)))
        if np.isnan(value):
            raise UserError(
                f"All judgements are the same, so {name} is not defined: chance alone would give full agreement. Use "
                "the raw agreement."
            )
        # Only the counts of an item matter, so the number of items with each distinct table of counts is drawn.
        kinds, often = np.unique(counts.reshape(n, k * k), axis=0, return_counts=True)
        generator, drawn, step = np.random.default_rng(seed), [], max(1, MAX_COUNTS // len(kinds))
        for start in range(0, RESAMPLES, step):
            times = generator.multinomial(n, often / n, size=min(step, RESAMPLES - start))  # (step, kinds)
            drawn.append(statistic((times @ kinds).reshape(-1, k, k)))
        resampled = np.concatenate(drawn)
    resampled = resampled[~np.isnan(resampled)]
    if n < 2 or not len(resampled):
        return Score(name, value, None, None, n, "higher")
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Score(name, value, float(low), float(high), n, "higher")


# --------------------------------------------------------------------------- measures


def raw_agreement(table: VoteTable, seed: int = 0) -> Score:
    """How often two judgements of one item agree, over items with two or more. Raises UserError if there are none."""
    return _score("agreement", coincidences(table), observed, seed)


def alpha(table: VoteTable, seed: int = 0) -> Score:
    """Krippendorff's alpha (nominal) of any number of raters, who need not judge all items. Raises UserError."""
    return _score("alpha", coincidences(table), alpha_of, seed)
