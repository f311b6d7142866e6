"""A ridge regression of each step ahead on the values before: the best linear forecast of a shape and a level."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from afresh.domains.series.classical import filled
from afresh.domains.series.scores import Array

SEEN, PERIODS = 336, 8  # values before that it sees: so many periods, at most so many steps
STRENGTHS = (1e-3, 1.0, 100.0, 1e4)  # of the penalty
CHOOSING = 5  # one of so many parts of the windows, the last, chooses the strength and has the residuals
SMALL = 1e-9


def features(past: Array, period: int) -> tuple[Array, Array, Array]:
    """What the regression sees of each window and column, (N, C, F), and the level and the scale (N, C, 1) by which it
    is normalised: the mean of the last period and the deviation of the past (N, C, P). The level in units of the scale
    is seen as well, so that what returns to a fixed value is linear in what is seen."""
    values = filled(past, period)[..., -min(SEEN, PERIODS * period) :]
    level = values[..., -period:].mean(-1, keepdims=True)
    scale = np.maximum(values.std(-1, keepdims=True), SMALL)
    return np.concatenate([(values - level) / scale, level / scale], -1), level, scale


def fit(past: Array, truth: Array, period: int, levels: Sequence[float]) -> Callable[[Array], Array]:
    """A regression to the truth (N, C, H) of training windows in the order of time; returns the function of the past
    that gives quantiles (Q, N, C, H). These are the forecast and quantiles of its errors, of each column and step ahead
    in units of the scale, in the last windows, to which it was not fitted.

    Raises ValueError if too few windows are complete.
    """
    from sklearn.linear_model import Ridge

    whole = np.isfinite(truth).all((1, 2))
    seen, level, scale = features(past[whole], period)
    target = (truth[whole] - level) / scale
    first = len(seen) - len(seen) // CHOOSING
    if len(seen) < 2 * CHOOSING:
        raise ValueError(f"{len(seen)} complete windows are too few for a regression")
    rows = [v[:first].reshape(-1, v.shape[-1]) for v in (seen, target)]
    models = [Ridge(alpha=strength, fit_intercept=False).fit(*rows) for strength in STRENGTHS]
    late = seen[first:].reshape(-1, seen.shape[-1])
    errors = [target[first:] - m.predict(late).reshape(target[first:].shape) for m in models]
    best = int(np.argmin([np.abs(e).mean() for e in errors]))
    around = np.quantile(errors[best], levels, axis=0)  # (Q, C, H)

    def predict(past: Array) -> Array:
        seen, level, scale = features(past, period)
        middle = models[best].predict(seen.reshape(-1, seen.shape[-1])).reshape(*seen.shape[:2], -1)
        return np.asarray((middle + around[:, None]) * scale + level)

    return predict
