"""What lists of recommendations are like, whether or not they hit: coverage, concentration, novelty, diversity,
popularity and calibration.

`lists` are (N, k) numbers of items, -1 where a list is shorter. How often an item occurs, `counts` (V,), is the number
of training histories that hold it (`users_of`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from afresh.domains.interactions.ranking import Items
from afresh.engine.evaluation.estimate import Array, Estimate, bootstrap, jackknife, leave_out

BINS = 10  # of predicted probabilities, each with as many predictions
DRAWS = 100  # of outcomes, for what a calibrated model gets
ROWS = 2048  # lists that are held at a time


def users_of(histories: Sequence[Items], items: int) -> Array:
    """The number of histories that hold each item: (V,)."""
    out = np.zeros(items)
    for history in histories:
        out[np.unique(history)] += 1
    return out


def exposure(lists: Items, items: int) -> Array:
    """How often each item is recommended: (V,)."""
    return np.bincount(lists[lists >= 0], minlength=items).astype(np.float64)


def coverage(lists: Items, items: int) -> Estimate:
    """The share of the catalogue that is recommended to anyone. It grows with the number of lists.

    The interval is by a jackknife over groups of users: resampling repeats users, and so would always cover less.
    """
    value = float((exposure(lists, items) > 0).mean())
    without = [float((exposure(lists[kept], items) > 0).mean()) for kept in leave_out(len(lists))]
    return _between(value, without, len(lists))


def gini(lists: Items, items: int) -> Estimate:
    """The Gini index of exposure over the catalogue: 0 if every item is recommended equally often, 1 if one alone is.

    Shani and Gunawardana 2011, evaluating recommendation systems, Recommender Systems Handbook, eq. 8.18. Interval by a
    jackknife over groups of users, as for `coverage`.
    """
    without = [_gini(exposure(lists[kept], items)) for kept in leave_out(len(lists))]
    return _between(_gini(exposure(lists, items)), without, len(lists))


def _gini(counts: Array) -> float:
    n, total = len(counts), counts.sum()
    if n < 2 or total == 0:
        return 0.0
    weight = 2 * np.arange(1, n + 1) - n - 1
    return float(weight @ np.sort(counts) / (n - 1) / total)


def novelty(lists: Items, counts: Array, histories: int) -> Estimate:
    """Mean self-information of recommended items, in bits: -log2 of the share of histories that hold the item.

    Zhou et al. 2010, the diversity-accuracy dilemma, PNAS, eq. 6. An item that no history holds counts as in one.
    """
    bits = -np.log2(np.maximum(counts, 1) / histories)
    return bootstrap(*_per_list(lists, bits))


def popularity_lift(lists: Items, histories: Sequence[Items], counts: Array) -> Estimate | None:
    """How much more popular recommendations are than what the same users took: 0 for equally, 1 for twice.

    The mean popularity of the list over that of the history, both averaged over users, minus 1 (Abdollahpouri et al.
    2020, popularity bias, calibration and fairness, RecSys, eq. 3, of all users as one group). None if none of them has
    taken anything, as where everybody has one event.
    """
    totals, sizes = _per_list(lists, counts)
    taken = [float(counts[h].mean()) if len(h) else np.nan for h in histories]
    own = np.array(taken, np.float64)
    known = ~np.isnan(own) & (sizes > 0)
    if not own[known].any():
        return None
    found = bootstrap(totals[known] / sizes[known], own[known])
    low, high = (None if x is None else x - 1 for x in (found.low, found.high))
    return Estimate(found.value - 1, low, high, found.n)


def intra_list_diversity(lists: Items, vectors: Array | sparse.csr_matrix) -> Estimate | None:
    """1 minus the mean cosine similarity of two items of a list, averaged over users.

    Ziegler et al. 2005, topic diversification, WWW, eq. 5, as a distance. `vectors`: (V, D), dense or sparse; with the
    incidence matrix (V, users) the similarity is that of co-occurrence. An item whose vector is 0 is similar to none.
    Lists of fewer than two items are left out; None if there are no others.
    """
    sparse_rows = sparse.csr_matrix(vectors, dtype=np.float64)
    length = np.sqrt(np.asarray(sparse_rows.multiply(sparse_rows).sum(1)).ravel())
    unit = sparse.diags(1 / np.where(length > 0, length, 1)).tocsr() @ sparse_rows
    lengths = np.asarray(unit.multiply(unit).sum(1)).ravel()  # 1, or 0 for a vector of 0
    values = []
    for start in range(0, len(lists), ROWS):
        part = lists[start : start + ROWS]
        rows, places = np.nonzero(part >= 0)
        member = sparse.csr_matrix((np.ones(len(rows)), (rows, part[rows, places])), (len(part), unit.shape[0]))
        sums = member @ unit
        # Over pairs i != j, the sum of x_i x_j is |sum of x|^2 - sum of |x_i|^2.
        both = np.asarray(sums.multiply(sums).sum(1)).ravel() - member @ lengths
        n = (part >= 0).sum(1)
        kept = n > 1
        values.append(1 - both[kept] / (n[kept] * (n[kept] - 1)))
    found = np.concatenate(values)
    return bootstrap(found) if len(found) else None


def calibration(probability: Array, hit: Array, bins: int = BINS, seed: int = 0) -> tuple[Estimate, float]:
    """The expected calibration error of the probability that an item of a list is the next one; and what a model whose
    probabilities are true would get, which is above 0 since hits are few.

    Both are (N, k): the probability of each recommended item and whether it was the next (at most one a row). Sum over
    bins of |hits - probability| divided by the number of predictions (Guo et al. 2017, calibration of networks, ICML,
    eq. 5), with bins of equally many predictions, since most probabilities are small. Interval by a jackknife over
    groups of users: resampling repeats noise, which would raise the error.
    """
    order = np.argsort(probability, axis=None, kind="stable")
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size) * bins // order.size
    where = place.reshape(probability.shape)

    def error(hits: Array, rows: np.ndarray | slice = slice(None)) -> float:
        gaps = np.bincount(where[rows].ravel(), (hits - probability)[rows].ravel(), minlength=bins)
        return float(np.abs(gaps).sum() / probability[rows].size)

    without = [error(hit, kept) for kept in leave_out(len(hit))]
    generator, ends, floor = np.random.default_rng(seed), np.cumsum(probability, axis=1), []
    for _ in range(DRAWS):
        beyond = ends > generator.random((len(hit), 1))  # at most one item is the next: the first of them, or none
        outcome = (beyond & (np.cumsum(beyond, axis=1) == 1)).astype(np.float64)
        floor.append(error(outcome))
    return _between(error(hit), without, len(hit)), float(np.mean(floor))


def _per_list(lists: Items, value: Array) -> tuple[Array, Array]:
    """For each list, the sum of the values of its items, and how many items it has."""
    there = lists >= 0
    return np.where(there, value[np.maximum(lists, 0)], 0.0).sum(1), there.sum(1).astype(np.float64)


def _between(value: float, without: Sequence[float], n: int) -> Estimate:
    """An estimate in [0, 1] with the interval of a jackknife."""
    if n < len(without):
        return Estimate(value, None, None, n)
    low, high = jackknife(value, without)
    return Estimate(value, max(0.0, low), min(1.0, high), n)
