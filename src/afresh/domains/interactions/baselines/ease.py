"""Recommend by a linear model from items to items in closed form: EASE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.interactions.baselines.incidence import incidence
from afresh.domains.interactions.ranking import Items, Scorer, Scores

MAX_ITEMS = 20_000  # the Gram matrix and the weights then have 1.6 GB each


def fit(
    histories: Sequence[Items],
    items: int,
    *,
    regularisation: float = 200.0,
    max_items: int = MAX_ITEMS,
) -> Scorer:
    """Score items by `weights_of` the items of the history. Raises UserError for more than `max_items`."""
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
