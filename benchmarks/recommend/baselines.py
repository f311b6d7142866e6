"""The settings of a baseline, chosen on held-out events: the same time for each, so that none is made to look weak."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afresh.domains.interactions.baselines import Baseline, Setting
from afresh.domains.interactions.ranking import Items, Scorer, ndcg, rank_all
from afresh.evaluation.estimate import Array

K = 10


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
        scorer = baseline.fit(histories, items, times, **settings)
        ranked = rank_all(scorer, histories if questions is None else questions, targets, items, k=K, seen=seen)
        score = float(ndcg(ranked.ranks, K).mean())
        if best is None or score > max(t.score for t in tried):
            best = scorer
        tried.append(Trial(settings, score, time.process_time() - start))
    assert best is not None
    first = max(tried, key=lambda t: t.score)
    return Tuned(best, first.settings, tuple(tried), len(grid) - len(tried))
