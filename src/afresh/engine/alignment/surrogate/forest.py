"""Random forests as posteriors: the trees are draws (Hutter et al. 2014, "Algorithm runtime prediction", section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TREES = 100


@dataclass(frozen=True, eq=False)
class Forest:
    """`noise`: the variance of what the trees leave unexplained of values that they have not seen."""

    trees: Any
    noise: float

    def draws(self, rows: Array) -> Array:
        """What each tree says, (TREES, m)."""
        narrow = rows.astype(np.float32)
        return np.stack([tree.predict(narrow) for tree in self.trees.estimators_])

    def posterior(self, rows: Array) -> tuple[Array, Array]:
        """Means (m,) and covariance (m, m)."""
        drawn = self.draws(rows)
        apart = drawn - drawn.mean(0)
        return drawn.mean(0), apart.T @ apart / (len(drawn) - 1)

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Means (m,) and variances (m,), without noise."""
        drawn = self.draws(rows)
        return drawn.mean(0), drawn.var(0, ddof=1)


def fit(rows: Array, values: Array, counts: Array, seed: int = 0) -> Forest:
    """Descriptors (n, D), values (n,), and of how many measurements each value is the mean (n,)."""
    from sklearn.ensemble import RandomForestRegressor

    trees = RandomForestRegressor(TREES, max_features="sqrt", oob_score=True, random_state=seed, n_jobs=1)
    trees.fit(rows.astype(np.float32), values, sample_weight=counts)
    unseen = float(np.mean(np.square(values - trees.oob_prediction_)))
    own = Forest(trees, 0.0)
    spread = float(own.predict(rows[:1000])[1].mean())
    return Forest(trees, max(unseen - spread, 1e-3 * float(values.var())))
