"""Recommend what is most similar to the items of the history, by who took both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afresh.domains.interactions.baselines.incidence import incidence
from afresh.domains.interactions.ranking import Items, Scorer, Scores, chunks
from afresh.engine.evaluation.estimate import Array


def fit(
    histories: Sequence[Items],
    items: int,
    *,
    neighbours: int = 100,
    shrink: float = 10.0,
) -> Scorer:
    """Score an item by the sum of its similarities to the items of the history.

    The similarity of items i and j, which n_i and n_j users took and c both: c / (sqrt(n_i n_j) + shrink), the cosine
    with a shrinkage that lowers it where the evidence is thin (Sarwar et al. 2001, item-based collaborative filtering,
    WWW; Ferrari Dacrema et al. 2019, are we really making much progress, RecSys, section 3.2). An item is similar to
    its first `neighbours` alone; among equals those with lower numbers come first. The order and times of events do
    not count.
    """
    from scipy import sparse  # here: a server that recommends nothing starts earlier

    taken = incidence(histories, items)
    by_item = taken.T.tocsr()
    users = np.asarray(taken.sum(0), np.float64).ravel()
    kept: list[tuple[Items, Array]] = []
    for block in chunks(items, items):
        both = (by_item @ by_item[block].T).tocsc()  # (V, block)
        for item, start, end in zip(np.arange(items)[block], both.indptr, both.indptr[1:], strict=False):
            kept.append(_nearest(item, both.indices[start:end], both.data[start:end], users, neighbours, shrink))
    rows, values = (np.concatenate(part) for part in zip(*kept, strict=True))
    ends = np.cumsum([0, *(len(r) for r, _ in kept)])
    similarity = sparse.csc_matrix((values.astype(np.float32), rows, ends), (items, items))  # column i: neighbours of i

    def score(histories: Sequence[Items]) -> Scores:
        return np.asarray((incidence(histories, items) @ similarity).toarray(), np.float32)

    return score


def _nearest(
    item: int, others: Items, shared: Array, users: Array, neighbours: int, shrink: float
) -> tuple[Items, Array]:
    """The neighbours of an item, nearest first, and their similarities; `shared` users took it and each of `others`."""
    similar = np.where(others == item, 0.0, shared / (np.sqrt(users[others] * users[item]) + shrink))
    first = np.lexsort((others, -similar))[:neighbours]
    first = first[similar[first] > 0]
    return others[first], similar[first]
