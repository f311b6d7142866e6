"""Forgetting alone: the memory of each exercise by FSRS, the scheduler of Anki, through its package fsrs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from fsrs import Card, Rating, Scheduler

from afresh.domains.exercises.knowledge.answers import Answers, Array, Predictor

START = datetime(2020, 1, 1, tzinfo=UTC)


def fit(train: Sequence[Answers]) -> Predictor:
    """FSRS with its published parameters, a card for each exercise of a learner; what it gives before a first answer is
    the share of right first answers in training."""
    firsts = np.array([a.right[np.unique(a.items, return_index=True)[1]].mean() for a in train if len(a)])
    first = float(firsts.mean()) if len(firsts) else 0.5

    def predict(a: Answers) -> Array:
        scheduler = Scheduler(enable_fuzzing=False)
        cards: dict[int, Card] = {}
        out = np.full(len(a), first)
        for t, (item, right, day) in enumerate(zip(a.items.tolist(), a.right.tolist(), a.days.cumsum(), strict=True)):
            now = START + timedelta(days=float(day))
            card = cards.get(item)
            if card is not None:
                out[t] = scheduler.get_card_retrievability(card, now)
            card, _ = scheduler.review_card(card or Card(), Rating.Good if right else Rating.Again, now)
            cards[item] = card
        return out

    return predict
