"""Forecasts of the held-out end, from origins that roll over it, beside those of simpler models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import CondSpec, Evidence, Item, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space
from afresh.core.space import evenly_spaced
from afresh.domains.series import classical, tree
from afresh.domains.series.encoder import SeriesEncoder
from afresh.domains.series.kind import SERIES
from afresh.domains.series.known import Layout
from afresh.domains.series.scores import INTERVALS, LEVELS, held, quantile_losses, scaled_errors, seasonal_naive
from afresh.evaluation.estimate import Estimate, mean, ratio
from afresh.evaluation.study import Study, Unmeasurable, study_of

Array = NDArray[np.float64]
ORIGINS, FEW = 32, 8  # from which is forecast, and where the seconds are over
MEMBERS = 50
LEARNT = 1_000  # training windows that trees are fitted to
EVERY = (*LEVELS, *(p for pair in INTERVALS.values() for p in pair))
SEED = 1_000_003


def series_only(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for windows of series, else the reason why not."""
    return None if kind is SERIES else f"forecasts series, not {kind.plural}"


@dataclass(frozen=True)
class Origins:
    """N windows that end at different times: what came (N, C, H), what was before (N, C, P), what is known of the steps
    ahead (N, E, H), and the run's quantiles EVERY (Q, N, C, H), all in the units of the data."""

    truth: Array
    past: Array
    later: Array
    quantiles: Array
    layout: Layout


def divided(items: Sequence[Item], encoder: SeriesEncoder) -> tuple[Array, Array, Array]:
    """Past (N, C, P), truth (N, C, H), and what is known of the steps ahead (N, E, H)."""
    values = np.stack([np.asarray(i.value, np.float64) for i in items])
    later = np.stack([encoder.extra(i).numpy() for i in items]).astype(np.float64)
    context = encoder.layout.context
    return values[..., :context], values[..., context:], later[..., context:]


def origins_of(run: Any, evidence: Evidence) -> Origins:
    """Raises Unmeasurable for a run of another encoder."""
    encoder = run.encoder
    if not isinstance(encoder, SeriesEncoder):
        raise Unmeasurable("the run has no encoder of series")
    every = evidence.heldout_items
    count = FEW if evidence.limited else ORIGINS
    items = [every[i] for i in evenly_spaced(len(every), min(count, len(every))).tolist()]
    past, truth, later = divided(items, encoder)
    cond = encoder.encode(items).cond.repeat(MEMBERS)
    drawn = run.draw(run.modules, cond, SEED, run.settings({}), torch.arange(cond.size))
    members = encoder.physical(drawn).astype(np.float64).reshape(len(items), MEMBERS, *encoder.space.shape)
    quantiles = np.quantile(members[..., encoder.layout.context :], EVERY, axis=1)
    return Origins(truth, past, later, quantiles, encoder.layout)


def foreseen(evidence: Evidence) -> list[Score]:
    """Quantile loss, scaled error and coverage of the held-out end, and the first two of simpler models: the seasonal
    naive forecast, and without a limit of seconds trees on lags and `classical.MODELS`, where statsforecast is
    installed. `control`: of the best of these."""
    study = study_of(evidence)
    found = study.tool(origins_of)
    period = found.layout.period
    theirs = {"naive": seasonal_naive(found.past, period, found.layout.horizon, EVERY)}
    if not study.limited:
        encoder = study.tool(encoder_of)
        rows = evenly_spaced(len(study.train_items), min(LEARNT, len(study.train_items))).tolist()
        past, truth, later = divided([study.train_items[i] for i in rows], encoder)
        theirs["tree"] = tree.fit(past, later, truth, period, EVERY)(found.past, found.later)
        theirs |= classical_forecasts(study, found)
    study.note(
        f"forecasts from {len(found.truth)} origins in the held-out end, {MEMBERS} futures each; the scale of the "
        "scaled error is that of the context of each"
    )
    losses = {k: weighted_loss(q, found.truth) for k, q in {"": found.quantiles, **theirs}.items()}
    errors = {k: scaled_error(q, found) for k, q in {"": found.quantiles, **theirs}.items()}
    out = []
    for name, by in (("forecast_crps", losses), ("forecast_mase", errors)):
        best = min(e.value for k, e in by.items() if k)
        out.append(by[""].score(name, "lower", None, best))
        out += [e.score(f"{name}/{k}", "lower") for k, e in by.items() if k]
    for share in INTERVALS:
        out.append(
            coverage(found.quantiles, found.truth, share).score(f"forecast_coverage_{share:.0%}".rstrip("%"), "none")
        )
    return out


def classical_forecasts(study: Study, found: Origins) -> dict[str, Array]:
    """Quantiles EVERY (Q, N, C, H) by name; notes say which models are left out, and why."""
    if not classical.installed():
        study.note(classical.ABSENT)
        return {}
    out: dict[str, Array] = {}
    for name, model in classical.MODELS.items():
        layout, report = found.layout, partial(study.effort.report, f"forecasts of {model.name}")
        try:
            out[name], failed = classical.forecasts(
                model, found.past, layout.period, layout.horizon, EVERY, report=report
            )
        except Unmeasurable as error:
            study.note(f"{model.name} is not beside the model: {error}")
            continue
        if failed:
            total = found.past.shape[0] * found.past.shape[1]
            study.note(f"{model.name} could not be fitted for {failed:,} of {total:,} forecasts, which repeat a period")
    return out


def encoder_of(run: Any, evidence: Evidence) -> SeriesEncoder:
    encoder: SeriesEncoder = run.encoder
    return encoder


def weighted_loss(quantiles: Array, truth: Array) -> Estimate:
    """The mean weighted quantile loss over LEVELS, of quantiles EVERY. Raises Unmeasurable if all values are 0."""
    loss, size = quantile_losses(quantiles[: len(LEVELS)], truth)
    if not size.sum():
        raise Unmeasurable("every held-out value is 0")
    return ratio(loss, size)


def scaled_error(quantiles: Array, found: Origins) -> Estimate:
    """Raises Unmeasurable if no column changes from one period to the next."""
    each = scaled_errors(quantiles[EVERY.index(0.5)], found.truth, found.past, found.layout.period)
    counted = each[np.isfinite(each).any(1)]
    if not len(counted):
        raise Unmeasurable("no column changes from one period to the next, so that errors have no scale")
    return mean(np.nanmean(counted, 1))


def coverage(quantiles: Array, truth: Array, share: float) -> Estimate:
    low, high = (quantiles[EVERY.index(p)] for p in INTERVALS[share])
    return ratio(*held(low, high, truth))


# --------------------------------------------------------------------------- verdict

SHARP = 0.95  # good: a loss below this share of that of the better simpler model
HONEST = (0.8, 0.97)  # and 90% intervals hold so much
WORSE = 1.1  # noise: a loss above so many times that of the better simpler model


def judge_forecasts(scores: Any, plural: str) -> Judgement | None:
    """The judgement on forecasts beside simpler ones; None without these."""
    loss, held_90 = scores.get("forecast_crps"), scores.get("forecast_coverage_90")
    if loss is None or loss.control is None or held_90 is None:
        return None
    numbers = (
        f"(quantile loss {loss.value:.3f}, of the best simpler model {loss.control:.3f}; 90% intervals hold "
        f"{held_90.value:.0%})"
    )
    if loss.value > WORSE * loss.control:
        return "noise", f"A simpler model forecasts better {numbers}."
    if loss.value <= SHARP * loss.control and HONEST[0] <= held_90.value <= HONEST[1]:
        return (
            "good",
            f"The forecasts are better than simpler ones, and as certain as they may be {numbers}.",
        )
    if not HONEST[0] <= held_90.value <= HONEST[1]:
        less = "less certain than they could be" if held_90.value > HONEST[1] else "too certain"
        return "recognisable", f"The forecasts are {less} {numbers}."
    return "recognisable", f"The forecasts are about as good as those of the best simpler model {numbers}."


WORDS = {
    "forecast_crps": ScoreWords(
        "error of the forecast distribution (weighted quantile loss)",
        "The mean loss of the quantiles .1 to .9 divided by the size of the values, an approximation of the CRPS; 0 is "
        "to know the future.",
        Question.PREDICTS,
    ),
    "forecast_mase": ScoreWords(
        "error of the median, in seasonal differences (MASE)",
        "The mean absolute error divided by how much values differ from those one period before; 1 is as good as "
        "repeating the last period was in the past.",
        Question.PREDICTS,
    ),
    "forecast_coverage_50": ScoreWords(
        "values within the 50% intervals", "An honest forecast has one half.", Question.PREDICTS
    ),
    "forecast_coverage_90": ScoreWords(
        "values within the 90% intervals", "An honest forecast has nine tenths.", Question.PREDICTS
    ),
}
BESIDE = {
    "naive": "of repeating the last period",
    "tree": "of gradient-boosted trees on lags",
    **{name: f"of {model.name}" for name, model in classical.MODELS.items()},
}
METRICS = [
    Metric("foreseen_series", series_only, foreseen, brief=True, words=WORDS, beside=BESIDE, judge=judge_forecasts)
]
