"""Baselines that every recommender is judged by. They know numbers of items alone, in the order of time.

Each file has a function `fit(histories, items, times, *, ...)`: `histories`, one array of item numbers 0 to V - 1 for
each user, in time order; V = `items`, the size of the catalogue; `times`, beside each history the seconds of its
events, or None. It returns a scorer, which takes any histories, of users seen or unseen, and returns scores (B, V) in
float32, higher for what is likelier to come next. Items that the history holds are scored like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from afresh.domains.interactions.baselines import ease, ials, item_knn, popularity
from afresh.domains.interactions.ranking import Scorer

Setting = int | float


@dataclass(frozen=True)
class Baseline:
    """A recommender by name; the settings that `tuning.tuned` tries, in this order; whether some need times."""

    name: str
    fit: Callable[..., Scorer]
    grid: tuple[Mapping[str, Setting], ...]
    timed_grid: tuple[Mapping[str, Setting], ...] = ()


BASELINES = (
    Baseline("popularity", popularity.fit, popularity.GRID, popularity.TIMED_GRID),
    Baseline("item kNN", item_knn.fit, item_knn.GRID),
    Baseline("EASE", ease.fit, ease.GRID),
    Baseline("iALS", ials.fit, ials.GRID),
)
