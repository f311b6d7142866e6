"""Exponential smoothing, the Theta method and ARIMA, fitted to the past of each column before it is forecast, as the
package statsforecast has them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core.plural import counted
from afresh.domains.series.scores import seasonal_naive
from afresh.engine.evaluation.study import Unmeasurable

Array = NDArray[np.float64]
ABSENT = "AutoETS, AutoTheta and AutoARIMA are not beside the model without the extra: pip install 'afresh[series]'"
SECONDS = 120.0  # of each model, about what trees take
RAISED = 10.0  # times the range of values, so that to divide by the season is nearly to subtract it
TRIED = 3  # forecasts after which it is known how long all would take


@dataclass(frozen=True)
class Classical:
    """A model by its class in statsforecast. `longest`: the longest season that it has; None: any. `above`: it is
    fitted to values that are raised far above 0 where some are not above it."""

    name: str
    longest: int | None = None
    above: bool = False
    options: dict[str, Any] = field(default_factory=dict)


MODELS = {
    # ETS of any error, trend and season, chosen by the AICc (Hyndman et al. 2002). statsforecast would leave longer
    # seasons out without a word.
    "ets": Classical("AutoETS", longest=24),
    # The best of four Theta models (Fiorucci et al. 2016), after values are divided by the season where there is one.
    # From values that are not above 0 the season is subtracted, and statsforecast 2.1.1 then counts it as noise, so
    # that intervals are several times too wide. A constant that is added changes nothing else in these models.
    "theta": Classical("AutoTheta", above=True),
    # Seasonal ARIMA by stepwise search (Hyndman and Khandakar 2008), in which orders are compared by conditional sums
    # of squares, as R does for series of more than 150 values. Its state is longer than a season.
    "arima": Classical("AutoARIMA", longest=24, options={"approximation": True}),
}


def installed() -> bool:
    return find_spec("statsforecast") is not None


def forecasts(
    model: Classical,
    past: Array,
    period: int,
    horizon: int,
    levels: Sequence[float],
    seconds: float = SECONDS,
    report: Callable[[float], None] = lambda share: None,
) -> tuple[Array, int]:
    """Quantiles (Q, N, C, H) after each past (N, C, P) of each column, and how many of the N C forecasts are those of
    `seasonal_naive`, since the model could not be fitted. Missing values have those of the period before in their
    place. `report` is called with the share that is done.

    Raises Unmeasurable if the season is too long for the model, or if all of it would take longer than so many seconds,
    as soon as that is known: one fit is not interrupted.
    """
    from statsforecast import models

    if model.longest is not None and period > model.longest:
        raise Unmeasurable(f"its seasons have at most {model.longest} steps, and the period is {period:,}")
    naive = seasonal_naive(past, period, horizon, levels)
    complete = filled(past, period)
    quantiles, failed = np.empty_like(naive), 0
    total, begun = past.shape[0] * past.shape[1], time.monotonic()
    for done, place in enumerate(np.ndindex(past.shape[:2])):
        report(done / total)
        took = time.monotonic() - begun
        needed = took / done * total if done >= TRIED else took
        if needed > seconds:
            raise Unmeasurable(
                f"{counted(total, 'forecast')} would take {needed:,.0f} seconds, and {seconds:,.0f} are given"
            )
        one = complete[place]
        raised = RAISED * np.ptp(one) - one.min() if model.above and one.min() <= 0 else 0.0
        unfitted = getattr(models, model.name)(season_length=period, **model.options)
        found = quantiles_of(unfitted, one + raised, horizon, levels)
        failed += found is None
        quantiles[(slice(None), *place)] = naive[(slice(None), *place)] if found is None else found - raised
    return quantiles, failed


def quantiles_of(model: Any, past: Array, horizon: int, levels: Sequence[float]) -> Array | None:
    """Quantiles (Q, H) after the past (P,) by a model of statsforecast, whose intervals of 20% lie between the
    quantiles .4 and .6, and whose mean is taken for the median; None where it cannot be fitted, as to two values."""
    shares = [round(200 * abs(p - 0.5)) for p in levels]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # one for each order that does not converge
        try:
            found = model.forecast(y=past, h=horizon, level=sorted({s for s in shares if s}))
        except Exception:  # whatever its numerics raise
            return None
    names = [f"{'lo' if p < 0.5 else 'hi'}-{s}" if s else "mean" for p, s in zip(levels, shares, strict=True)]
    quantiles = np.stack([np.asarray(found[name], np.float64) for name in names])
    return quantiles if np.isfinite(quantiles).all() else None


def filled(past: Array, period: int) -> Array:
    """Values (..., P) in which one that is missing is that of the period before, else of the period after, else the
    mean of those that are known, else 0."""
    out = past.copy()
    length = out.shape[-1]
    for step in range(period, length):
        out[..., step] = np.where(np.isnan(out[..., step]), out[..., step - period], out[..., step])
    for step in range(length - period - 1, -1, -1):
        out[..., step] = np.where(np.isnan(out[..., step]), out[..., step + period], out[..., step])
    count = np.isfinite(past).sum(-1, keepdims=True)
    return np.where(np.isnan(out), np.nan_to_num(past).sum(-1, keepdims=True) / np.maximum(count, 1), out)
