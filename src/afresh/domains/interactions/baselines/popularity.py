"""Recommend to everyone what most events are of: of all time, of a recent window, or with older events counting less.

Popularity in time is the stronger baseline where taste moves (Ji et al. 2020, re-visit of the popularity baseline,
SIGIR).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afresh.core import UserError
from afresh.domains.interactions.ranking import Items, Scorer, Scores
from afresh.evaluation.estimate import Array

DAY = 86_400.0
GRID: tuple[dict[str, float], ...] = ({},)
TIMED_GRID: tuple[dict[str, float], ...] = (
    *({"window": days * DAY} for days in (7, 30, 90, 365)),
    *({"half_life": days * DAY} for days in (1, 7, 30, 90, 365)),
)


def fit(
    histories: Sequence[Items],
    items: int,
    times: Sequence[Array] | None = None,
    *,
    window: float | None = None,
    half_life: float | None = None,
) -> Scorer:
    """Score each item by the number of its events, the same for every history.

    `window`: only events of the last so many seconds before the newest count. `half_life`: an event counts half for
    every so many seconds that it is older than the newest. Raises UserError if either is asked for without times.
    """
    events = np.concatenate([*histories, np.empty(0, np.int64)]).astype(np.int64)
    weight = np.ones(len(events))
    if window is not None or half_life is not None:
        if times is None:
            raise UserError(
                "Popularity in a window or with a half-life needs the time of each event, and there are none. Leave "
                "both out to count all events alike.",
                "no_times",
            )
        when = np.concatenate([*times, np.empty(0)])
        age = when.max(initial=-np.inf) - when
        if window is not None:
            weight[age > window] = 0
        if half_life is not None:
            weight *= np.exp2(-age / half_life)
    popularity = np.bincount(events, weight, items).astype(np.float32)

    def score(histories: Sequence[Items]) -> Scores:
        return np.tile(popularity, (len(histories), 1))

    return score
