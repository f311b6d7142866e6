"""Where held-out items stand in a model's order of the whole catalogue, and the metrics of that.

Items are numbers from 0 to V - 1. Every item of the catalogue is ranked: metrics on a sample of it order models
differently (Krichene and Rendle 2020, on sampled metrics, KDD), so there are none here. Ties count against the model,
so that one that gives every item the same score ranks every target last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.engine.evaluation.estimate import Array, Estimate, bootstrap

CELLS = 1 << 24  # scores that are held at a time: 64 MiB of float32

Items = NDArray[np.int64]
Scores = NDArray[np.float32]
Scorer = Callable[[Sequence[Items]], Scores]  # histories, each in time order -> (B, V), higher is better


def ranks(scores: Scores, targets: Items, excluded: NDArray[np.bool_] | None = None) -> Items:
    """The rank of each target, from 1: the number of items that score at least as much, itself counted once.

    `scores`: (B, V). `targets`: (B,), with -1 where there is none, whose rank is 0. `excluded`: (B, V), the items that
    are not recommended; they are not counted, and a target among them is ranked behind all others. A score that is not
    a number counts as higher than its target's, and a target without a number is last.
    """
    out = np.zeros(len(targets), np.int64)
    rows = np.flatnonzero(targets >= 0)
    columns = targets[rows]
    ahead = ~(scores[rows] < scores[rows, columns][:, None])
    if excluded is not None:
        ahead &= ~excluded[rows]
    out[rows] = ahead.sum(1)
    if excluded is not None:
        lost = rows[excluded[rows, columns]]
        out[lost] = (~excluded[lost]).sum(1) + 1
    return out


def best(scores: Scores, k: int, excluded: NDArray[np.bool_] | None = None) -> Items:
    """The k items of the highest scores, best first: (B, k), with -1 where fewer are allowed.

    Among equal scores the item with the lower number comes first.
    """
    value = np.where(np.isnan(scores), -np.inf, scores)
    if excluded is not None:
        value[excluded] = -np.inf
    k = min(k, value.shape[1])
    # Of the items that tie with the k-th, a partition would choose at will; the sort is over those above it alone.
    least = -np.partition(-value, k - 1, axis=1)[:, k - 1 : k]
    out = np.full((len(value), k), -1, np.int64)
    for row, (each, limit) in enumerate(zip(value, least, strict=True)):
        candidates = np.flatnonzero(each >= limit)
        order = candidates[np.argsort(-each[candidates], kind="stable")][:k]
        kept = order if excluded is None else order[~excluded[row, order]]
        out[row, : len(kept)] = kept
    return out


@dataclass(frozen=True)
class Ranked:
    """What a scorer makes of N histories.

    `ranks`: those of the targets, (N,). `lists`: what is recommended, (N, k), -1 where fewer are allowed.
    `probability`: of each item of the lists, (N, k), if it was asked for.
    """

    ranks: Items
    lists: Items
    probability: Array | None = None


def rank_all(
    scorer: Scorer,
    histories: Sequence[Items],
    targets: Items,
    items: int,
    *,
    k: int = 10,
    seen: bool = False,
    probability: bool = False,
) -> Ranked:
    """Rank the catalogue of V = `items` for every history.

    `targets`: (N,), with -1 where a history has none. `seen`: whether items of the history may be
    recommended again. `probability`: whether the scores are logits, whose softmax over the allowed items is returned
    for the lists. At most 2^24 scores are held at a time.
    """
    parts = []
    for rows in chunks(len(histories), items):
        batch = histories[rows]
        scores = scorer(batch)
        excluded = None if seen else contained(batch, items)
        lists = best(scores, k, excluded)
        chance = _softmax(scores, excluded, lists) if probability else None
        parts.append((ranks(scores, targets[rows], excluded), lists, chance))
    found, lists = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    return Ranked(found, lists, np.concatenate([p[2] for p in parts if p[2] is not None]) if probability else None)


def chunks(rows: int, items: int, cells: int = CELLS) -> Iterator[slice]:
    """Slices of so many rows that each has at most `cells` scores, and at least one row."""
    size = max(1, cells // max(1, items))
    return (slice(start, start + size) for start in range(0, rows, size))


def contained(histories: Sequence[Items], items: int) -> NDArray[np.bool_]:
    """Whether each item of the catalogue is in each history: (B, V)."""
    out = np.zeros((len(histories), items), np.bool_)
    for row, history in zip(out, histories, strict=True):
        row[history] = True
    return out


def _softmax(scores: Scores, excluded: NDArray[np.bool_] | None, lists: Items) -> Array:
    """The probability of each item of the lists (B, k) among all that are allowed; 0 for -1."""
    logits = scores.astype(np.float64)
    if excluded is not None:
        logits[excluded] = -np.inf
    logits -= logits.max(1, keepdims=True)
    chance = np.exp(logits)
    picked = np.take_along_axis(chance, np.maximum(lists, 0), 1) / chance.sum(1, keepdims=True)
    return np.where(lists >= 0, picked, 0.0)


# --------------------------------------------------------------------------- metrics of ranks (N,), a value a row


def hit_rate(ranks: Items, k: int) -> Array:
    """Whether the target is among the first k: 1 or 0 for each row (N,)."""
    return np.asarray((ranks > 0) & (ranks <= k), np.float64)


def ndcg(ranks: Items, k: int) -> Array:
    """Normalised discounted cumulative gain of the first k, of one target: (N,) in [0, 1].

    1 / log2(1 + rank) for a target among the first k (Jarvelin and Kekalainen 2002, cumulated gain, ACM Trans. Inf.
    Syst., with gains of 0 and 1).
    """
    return hit_rate(ranks, k) / np.log2(1.0 + np.maximum(ranks, 1))


def reciprocal_rank(ranks: Items) -> Array:
    """1 divided by the rank of the target, 0 where there is none: (N,). Its mean is the mean reciprocal rank."""
    return np.asarray((ranks > 0) / np.maximum(ranks, 1), np.float64)


def accuracy(ranks: Items, k: int = 10, users: Items | None = None) -> dict[str, Estimate]:
    """HR@k, NDCG@k and MRR: means over rows, with intervals over users.

    `ranks`: (N,). `users`: (N,), whose row each is, where a user has several (a row for each event that is predicted in
    turn); by default every row is of another user.
    """
    values = {f"HR@{k}": hit_rate(ranks, k), f"NDCG@{k}": ndcg(ranks, k), "MRR": reciprocal_rank(ranks)}
    return {name: over_users(value, users) for name, value in values.items()}


def over_users(values: Array, users: Items | None = None) -> Estimate:
    """The mean over rows (N,), with the interval of a bootstrap over users. `users`: (N,), whose row each is."""
    if users is None:
        return bootstrap(values)
    _, number = np.unique(users, return_inverse=True)
    return bootstrap(np.bincount(number, values).astype(np.float64), np.bincount(number).astype(np.float64))
