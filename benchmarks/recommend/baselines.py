"""The settings of a baseline, chosen on held-out events: the same time for each, so that none is made to look weak."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from afresh.domains.interactions.baselines import ease, ials, item_knn, popularity
from afresh.domains.interactions.ranking import Items, Scorer, ndcg, rank_all
from afresh.engine.evaluation.estimate import Array

K = 10
DAY = 86_400.0  # seconds
Setting = int | float


@dataclass(frozen=True)
class Baseline:
    """A recommender by name; the settings that are tried, in this order; of those in `timed_grid` it needs times."""

    name: str
    make: Callable[..., Scorer]
    grid: tuple[Mapping[str, Setting], ...]
    timed_grid: tuple[Mapping[str, Setting], ...] = ()

    def fit(
        self, histories: Sequence[Items], items: int, times: Sequence[Array] | None, settings: Mapping[str, Setting]
    ) -> Scorer:
        return self.make(histories, items, **settings, **({"times": times} if self.timed_grid else {}))


def popularity_in_time(
    histories: Sequence[Items],
    items: int,
    times: Sequence[Array] | None,
    window: float | None = None,
    half_life: float | None = None,
) -> Scorer:
    """Popularity of all time, of the last `window` seconds before the newest event, or with events that count half for
    every `half_life` seconds that they are older, which is the stronger baseline where taste moves (Ji et al. 2020,
    re-visit of the popularity baseline, SIGIR)."""
    if times is None:
        return popularity(histories, items)
    when = np.concatenate([*times, np.empty(0)])
    age = when.max(initial=-np.inf) - when
    weight = np.ones(len(age)) if half_life is None else np.exp2(-age / half_life)
    if window is not None:
        weight[age > window] = 0
    counts = np.bincount(np.concatenate(histories), weight, items).astype(np.float32)
    return lambda asked: np.tile(counts, (len(asked), 1))


BASELINES = (
    Baseline(
        "popularity",
        popularity_in_time,
        ({},),
        (
            *({"window": days * DAY} for days in (7, 30, 90, 365)),
            *({"half_life": days * DAY} for days in (1, 7, 30, 90, 365)),
        ),
    ),
    Baseline(
        "item kNN",
        item_knn,
        tuple({"neighbours": n, "shrink": s} for n in (100, 30, 1000) for s in (10.0, 0.0, 100.0)),
    ),
    Baseline(
        "EASE",
        ease,
        tuple({"regularisation": r} for r in (200.0, 500.0, 100.0, 1000.0, 50.0, 20.0, 2000.0, 5.0)),
    ),
    Baseline(
        "iALS",
        ials,
        tuple(
            {"factors": f, "alpha": a, "regularisation": r}
            for f in (128, 256, 64)
            for a in (10.0, 3.0, 40.0)
            for r in (10.0, 1.0, 100.0)
        ),
    ),
)


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, NDCG@10 with them, and the processor's seconds of fitting and ranking."""

    settings: Mapping[str, Setting]
    score: float
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """The best scorer and its settings, what was tried in turn, and how many settings the time did not allow."""

    scorer: Scorer
    settings: Mapping[str, Setting]
    tried: tuple[Trial, ...]
    untried: int


def tune_baseline(
    baseline: Baseline,
    histories: Sequence[Items],
    items: int,
    targets: Items,
    *,
    seconds: float,
    times: Sequence[Array] | None = None,
    questions: Sequence[Items] | None = None,
    seen: bool = False,
) -> Tuned:
    """Fit a baseline with each of its settings, and keep the one of the highest NDCG@10 on held-out events.

    `histories` and `times`: what is fitted. `questions` and `targets` (N,): histories and the event after each; by
    default those that are fitted. `seen`: whether items of a history may be recommended again. `seconds`: of the
    processor, so that what else runs on the machine does not count. A setting that, by the slowest so far, would end
    after them is not tried; the first always is.
    """
    grid = (*baseline.grid, *(baseline.timed_grid if times is not None else ()))
    begun, best, tried = time.process_time(), None, list[Trial]()
    for settings in grid:
        start = time.process_time()
        if tried and start - begun + max(t.seconds for t in tried) > seconds:
            break
        scorer = baseline.fit(histories, items, times, settings)
        ranked = rank_all(scorer, histories if questions is None else questions, targets, items, k=K, seen=seen)
        score = float(ndcg(ranked.ranks, K).mean())
        if best is None or score > max(t.score for t in tried):
            best = scorer
        tried.append(Trial(settings, score, time.process_time() - start))
    assert best is not None
    first = max(tried, key=lambda t: t.score)
    return Tuned(best, first.settings, tuple(tried), len(grid) - len(tried))
