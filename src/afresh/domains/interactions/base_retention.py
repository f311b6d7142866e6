"""What a tuned run on interactions still knows: the held-out events of its base, ranked before and after tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from afresh.core import Evidence, Question, Score, ScoreWords, UserError, events
from afresh.core.plural import counted
from afresh.domains.interactions.history import History
from afresh.domains.interactions.ranking import Items, accuracy, ndcg, over_users, rank_all
from afresh.domains.interactions.recommend import Ranking, Recommender, recommender_of, scorer_of, why_not
from afresh.runs.run import Run

MOST, FEW = 2_000, 500  # held-out events that are ranked, and with a limit of seconds
K = 10
RETAINED_WORDS: Mapping[str, ScoreWords] = {
    f"retained_{name}": ScoreWords(
        f"what the base knew, {what}",
        f"As {name}, of the events that were held out from the base of a tuned run; the control is the base itself.",
        Question.PREDICTS,
    )
    for name, what in {
        "HR@10": "among the first ten (HR@10)",
        "NDCG@10": "near the top (NDCG@10)",
        "MRR": "by its place (MRR)",
    }.items()
}


def retained(run: Run, evidence: Evidence) -> tuple[list[Score], list[str]]:
    """HR, NDCG and MRR of the base's held-out events under the tuned run, with the base's own as control, and notes.

    Both rank the base's catalogue, so that what is measured is forgetting and not that new items are there to be
    chosen. Events that the tuned run has trained on are left out. Nothing for a run that was not tuned or does not
    recommend, and a note where the base or its data is not there.
    """
    record, after = run.record, evidence.tool(recommender_of)
    if after is None or record.base_model is None or record.align is not None:
        return [], []
    try:
        base = Run.open(Path(record.base_model))
        before = Recommender(base, complete=False, hurry=evidence.limited) if why_not(base) is None else None
    except UserError:
        before = None
    if before is None or before.data is None or after.data is None:
        return [], [f"forgetting is not measured: {record.base_model} or its data is not there"]
    histories, targets, users, learnt = questions(before, after.data[0], FEW if evidence.limited else MOST)
    if not len(targets):
        return [], ["forgetting is not measured: the base has no held-out events that the tuned run did not train on"]
    events.progress("what the base knew is asked again")
    seen, size = before.again(Ranking()), len(before.catalogue)
    ranks = [rank_all(scorer_of(r, size), histories, targets, size, k=K, seen=seen).ranks for r in (before, after)]
    was, now = (accuracy(r, K, users) for r in ranks)
    change = over_users(ndcg(ranks[1], K) - ndcg(ranks[0], K), users)
    between = "" if change.low is None else f" ({change.low:+.4f} to {change.high:+.4f})"
    name = f"NDCG@{K}"
    notes = [
        f"of the base's held-out events {len(targets):,} were ranked: {name} was {was[name].value:.4f} before tuning "
        f"and is {now[name].value:.4f}, a change of {change.value:+.4f}{between}"
    ]
    if learnt:
        notes.append(f"{counted(learnt, 'held-out event')} of the base that the tuned run has trained on, left out")
    scores = [e.score(f"retained_{name}", "higher", control=was[name].value) for name, e in now.items()]
    return scores, notes


def questions(before: Recommender, trained: Sequence[History], most: int) -> tuple[list[Items], Items, Items, int]:
    """Histories of item numbers, the held-out items that follow them, whose each is, and how many events were left out
    since they are among those that the tuned run has trained on."""
    assert before.data is not None
    known = {(h.user, item) for h in trained for item in h.items}
    index = before.catalogue.index
    places, learnt = [], 0
    for number, history in enumerate(before.data[1]):
        for place in range(history.context, len(history.items)):
            fresh = (history.user, history.items[place]) not in known
            learnt += not fresh
            if fresh and history.items[place] in index:
                places.append((number, place))
    kept = [places[i * len(places) // most] for i in range(most)] if len(places) > most else places
    rows = [(before.data[1][number].items, place, number) for number, place in kept]
    asked = [np.array([index[i] for i in items[:place] if i in index], np.int64) for items, place, _ in rows]
    targets = np.array([index[items[place]] for items, place, _ in rows], np.int64)
    return asked, targets, np.array([number for *_, number in rows], np.int64), learnt
