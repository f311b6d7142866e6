"""Recommend by factors of users and items, learnt by alternating least squares: iALS, through the package implicit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afresh.core import UserError
from afresh.domains.interactions.baselines.incidence import incidence
from afresh.domains.interactions.ranking import Items, Scorer, Scores


def fit(
    histories: Sequence[Items],
    items: int,
    *,
    factors: int = 128,
    alpha: float = 10.0,
    regularisation: float = 10.0,
    iterations: int = 16,
    seed: int = 0,
) -> Scorer:
    """Score items by their product with the factors of the user, without the order and times of events.

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
