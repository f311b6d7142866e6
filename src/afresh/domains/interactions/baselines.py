"""Baselines that every recommender is judged by. They know numbers of items alone.

A baseline takes `histories`, one array of item numbers 0 to V - 1 for each user, in time order, and V = `items`, the
size of the catalogue. It returns a scorer, which takes any histories, of users seen or unseen, and returns scores
(B, V) in float32, higher for what is likelier to come next. Items that the history holds are scored like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.interactions.ranking import Items, Scorer, Scores, chunks
from afresh.engine.evaluation.estimate import Array

if TYPE_CHECKING:
    from scipy import sparse

MAX_ITEMS = 20_000  # for EASE: the Gram matrix and the weights then have 1.6 GB each


def incidence(histories: Sequence[Items], items: int) -> sparse.csr_matrix:
    """(users, V): 1 where the history holds the item, however often, else 0; float32.

    Raises ValueError if a number is not one of an item.
    """
    from scipy import sparse  # here: a server that recommends nothing starts earlier

    sizes = [len(h) for h in histories]
    columns = np.concatenate([*histories, np.empty(0, np.int64)]).astype(np.int64)
    if len(columns) and not (columns.min() >= 0 and columns.max() < items):
        raise ValueError(
            f"the histories hold items {columns.min()} to {columns.max()}, but the catalogue has 0 to {items - 1}"
        )
    matrix = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])),
        (len(histories), items),
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def popularity(histories: Sequence[Items], items: int) -> Scorer:
    """Score each item by the number of its events, the same for every history."""
    events = np.concatenate([*histories, np.empty(0, np.int64)]).astype(np.int64)
    counts = np.bincount(events, minlength=items).astype(np.float32)

    def score(histories: Sequence[Items]) -> Scores:
        return np.tile(counts, (len(histories), 1))

    return score


def item_knn(
    histories: Sequence[Items],
    items: int,
    *,
    neighbours: int = 100,
    shrink: float = 10.0,
) -> Scorer:
    """Score an item by the sum of its similarities to the items of the history, by who took both.

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


def ease(
    histories: Sequence[Items],
    items: int,
    *,
    regularisation: float = 200.0,
    max_items: int = MAX_ITEMS,
) -> Scorer:
    """EASE, a linear model from items to items: score items by `weights_of` the items of the history. Raises UserError
    for more than `max_items`."""
    if items > max_items:
        raise UserError(
            f"EASE holds a weight for each pair of items: {items:,} items need {8 * items**2 / 1e9:,.0f} GB, and at "
            f"most {max_items:,} items are accepted. Use another baseline, or leave out rare items.",
            "too_many_items",
            items=items,
            most=max_items,
        )
    weights = weights_of(histories, items, regularisation)

    def score(histories: Sequence[Items]) -> Scores:
        return np.asarray(incidence(histories, items) @ weights, np.float32)

    return score


def weights_of(histories: Sequence[Items], items: int, regularisation: float) -> NDArray[np.float32]:
    """The weights B (V, V) that minimise |X - X B|^2 + regularisation |B|^2 with a zero diagonal, where X is the
    incidence of users and items, without the order and times of events.

    B = I - P / diag(P), column by column, with P = (X'X + regularisation I)^-1 (Steck 2019, embarrassingly shallow
    autoencoders, WWW, eq. 8). It takes 8 bytes for each pair of items and time that grows with the cube of their
    number. Raises UserError for a regularisation that is not above 0.
    """
    from scipy.linalg import lapack  # here: a server that recommends nothing starts earlier

    if regularisation <= 0:
        raise UserError(f"The regularisation of EASE must be above 0, not {regularisation:g}.", "bad_regularisation")
    taken = incidence(histories, items)
    gram = np.asfortranarray((taken.T @ taken).toarray(), np.float32)
    gram[np.diag_indices(items)] += regularisation
    # By Cholesky factors, in place: the inverse lies in the lower triangle alone.
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    assert not failed, "a positive definite matrix has Cholesky factors"
    inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    assert not failed
    diagonal = inverse.diagonal().copy()
    weights = np.empty((items, items), np.float32)
    for column in range(items):
        weights[column:, column] = -inverse[column:, column] / diagonal[column]
        weights[column, column:] = -inverse[column:, column] / diagonal[column:]
    weights[np.diag_indices(items)] = 0
    return weights


def ials(
    histories: Sequence[Items],
    items: int,
    *,
    factors: int = 128,
    alpha: float = 10.0,
    regularisation: float = 10.0,
    iterations: int = 16,
    seed: int = 0,
) -> Scorer:
    """iALS, through the package implicit: score items by their product with the factors of the user, without the order
    and times of events.

    The factors minimise the sum over all users and items of c (x - w h)^2 + regularisation (|W|^2 + |H|^2), where
    x = 1 and c = `alpha` for what a user took, else x = 0 and c = 1 (Hu et al. 2008, implicit feedback, ICDM, eq. 3).
    What is tuned are dimension, weight and regularisation, which decides (Rendle et al. 2022, revisiting iALS,
    RecSys); the regularisation does not grow with the number of events, since implicit has none that does. Every
    history, seen or unseen, is given its factors by solving for them with those of the items fixed.

    Raises UserError if implicit is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError:
        raise UserError(
            "iALS needs the package implicit, which is not installed: pip install 'afresh[recommend]'.",
            "missing_package",
        ) from None
    model = AlternatingLeastSquares(
        factors=factors,
        alpha=alpha,
        regularization=regularisation,
        iterations=iterations,
        random_state=seed,
        num_threads=1,  # more would add in another order
    )
    model.fit(incidence(histories, items), show_progress=False)
    of_items = np.asarray(model.item_factors)  # (V, factors)

    def score(histories: Sequence[Items]) -> Scores:
        of_users = model.recalculate_user(np.arange(len(histories)), incidence(histories, items))
        return np.asarray(of_users @ of_items.T, np.float32)

    return score
