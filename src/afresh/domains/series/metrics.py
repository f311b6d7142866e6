"""Forecasts of the held-out end, from origins that roll over it, beside those of simpler models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from afresh.core import CondSpec, Evidence, Item, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space
from afresh.core.plural import counted
from afresh.core.space import evenly_spaced
from afresh.domains.series import classical, ridge, tree
from afresh.domains.series.calibration import Widening, divided_in_time, horizons, widened, widening_of
from afresh.domains.series.encoder import SeriesEncoder
from afresh.domains.series.kind import SERIES
from afresh.domains.series.known import Layout
from afresh.domains.series.reading.step import SEASONS
from afresh.domains.series.scores import (
    INTERVALS,
    LEVELS,
    held,
    quantile_losses,
    scaled_errors,
    seasonal_naive,
    seasonal_quantiles,
)
from afresh.engine.evaluation.estimate import Z95, Estimate, ratio
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of

Array = NDArray[np.float64]
ORIGINS, FEW = 32, 8  # from which is forecast, and at least where the seconds are over
FORESEEING, TREES = 0.3, 0.4  # shares of the seconds for the run's forecasts, and for trees
MEMBERS = 64
LEARNT = 1_000  # training windows that trees and the regression are fitted to
EVERY = (*LEVELS, *(p for pair in INTERVALS.values() for p in pair))
REMEMBERED, MOST_VALUES = 4, 20_000_000  # seasons before each origin that simple forecasts see; numbers of all of them
LONGEST = 2_048  # steps of a season that is repeated
SEED = 1_000_003


def series_only(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for windows of series, else the reason why not."""
    return None if kind is SERIES else f"forecasts series, not {kind.plural}"


@dataclass(frozen=True)
class Origins:
    """N windows that end at different times: what came (N, C, H), what was before (N, C, P) as far as the run and trees
    see it and (N, C, long) as far as it is known, what is known of the steps ahead (N, E, H), and the run's quantiles
    EVERY (Q, N, C, H), all in the units of the data. drawn: its quantiles before they were calibrated. blocks (N,): the
    same for windows whose horizons overlap, so that their errors are not independent."""

    truth: Array
    past: Array
    long: Array
    later: Array
    quantiles: Array
    drawn: Array
    blocks: NDArray[np.int64]
    layout: Layout
    seasons: Mapping[str, int]


def divided(items: Sequence[Item], encoder: SeriesEncoder) -> tuple[Array, Array, Array]:
    """Past (N, C, P), truth (N, C, H), and what is known of the steps ahead (N, E, H)."""
    values = np.stack([np.asarray(i.value, np.float64) for i in items])
    later = np.stack([encoder.extra(i).numpy() for i in items]).astype(np.float64)
    context = encoder.layout.context
    return values[..., :context], values[..., context:], later[..., context:]


def long_pasts(every: Sequence[Item], items: Sequence[Item], context: int, length: int) -> Array:
    """The values (N, C, length) before the horizon of each of some windows, from all windows of its series; NaN before
    the first of them."""
    whole: dict[str, Array] = {}
    ends: dict[str, int] = {}
    for item in every:
        name, begin = item.images["place"]
        ends[name] = max(ends.get(name, 0), begin + item.value.shape[1])
    for item in every:
        name, begin = item.images["place"]
        values = whole.setdefault(name, np.full((len(item.value), length + ends[name]), np.nan))
        values[:, length + begin : length + begin + item.value.shape[1]] = item.value
    places = (item.images["place"] for item in items)
    return np.stack([whole[name][:, begin + context : begin + context + length] for name, begin in places])


def blocks_of(items: Sequence[Item], horizon: int) -> NDArray[np.int64]:
    """Numbers (N,) of stretches of time as long as the horizon, which those of all series share."""
    begins = np.array([item.images["place"][1] for item in items])
    return np.asarray((begins - begins.min()) // horizon)


@dataclass(frozen=True)
class Forecaster:
    """What draws members (M, N, C, H) of the horizons of windows, and how much they are to be widened."""

    encoder: SeriesEncoder
    draw: Callable[[Sequence[Item]], Array]
    widening: Widening | None = None


def forecaster_of(run: Any, evidence: Evidence) -> Forecaster:
    """Raises Unmeasurable for a run of another encoder."""
    if not isinstance(run.encoder, SeriesEncoder):
        raise Unmeasurable("the run has no encoder of series")
    return Forecaster(run.encoder, lambda items: horizons(run, items, MEMBERS, SEED), widening_of(run))


def origins_of(study: Study) -> Origins:
    """In the later half of what is held out, if the earlier one calibrated the run."""
    model, every = study.tool(forecaster_of), study.heldout_items
    layout, by = model.encoder.layout, model.widening
    late = range(len(every)) if by is None else divided_in_time(every, layout)[1]
    most = min(ORIGINS, len(late))
    count = study.effort.affordable(most, FEW, FORESEEING, lambda: model.draw([every[late[0]]]))
    items = [every[late[i]] for i in evenly_spaced(len(late), count).tolist()]
    past, truth, later = divided(items, model.encoder)
    seasons = seasons_of(model.encoder, MOST_VALUES // (len(items) * layout.channels * REMEMBERED))
    length = max(layout.context, REMEMBERED * max(seasons.values()))
    long = long_pasts([*study.train_items, *every], items, layout.context, length)
    seasons = {k: n for k, n in seasons.items() if np.isfinite(long[..., -n:]).any((1, 2)).all()}
    members = model.draw(items)
    drawn, found = (np.quantile(m, EVERY, axis=0) for m in (members, members if by is None else widened(members, by)))
    return Origins(truth, past, long, later, found, drawn, blocks_of(items, layout.horizon), layout, seasons)


def seasons_of(encoder: SeriesEncoder, longest: int) -> dict[str, int]:
    """Steps of each season that simple forecasts repeat: those of the calendar, and the run's own period if it is
    another one."""
    period = encoder.layout.period
    found = {name: n for name, n in encoder.grid.seasons.items() if n <= min(LONGEST, longest)}
    return found if period in found.values() else {"season": period, **found}


def foreseen(evidence: Evidence) -> list[Score]:
    """Quantile loss, scaled error and coverage of the held-out end, and the first two of simpler models: repeating each
    season, the quantiles of the last few, a ridge regression, trees on lags if the seconds suffice, and without a limit
    `classical.MODELS`, where statsforecast is installed. `control`: of the best of these."""
    study = study_of(evidence)
    found = origins_of(study)
    theirs = simple_forecasts(study, found)
    stretches = counted(len(set(found.blocks)), "stretch", "stretches")
    study.note(
        f"forecasts from {counted(len(found.truth), 'origin')} in {stretches} of the held-out end as long as the "
        f"horizon, {MEMBERS} futures each; the scale of the scaled error is that of the context of each"
    )
    every = {"": found.quantiles, **theirs}
    losses = {k: quantile_losses(q[: len(LEVELS)], found.truth) for k, q in every.items()}
    if not losses[""][1].sum():
        raise Unmeasurable("every held-out value is 0")
    by_loss = {k: in_blocks(loss, size, found.blocks) for k, (loss, size) in losses.items()}
    by_error = {k: scaled_error(q, found) for k, q in every.items()}
    out = []
    for name, by in (("forecast_crps", by_loss), ("forecast_mase", by_error)):
        best = min(e.value for k, e in by.items() if k)
        out.append(by[""].score(name, "lower", None, best))
        out += [e.score(f"{name}/{k}", "lower") for k, e in by.items() if k]
    best_loss = losses[min(theirs, key=lambda k: by_loss[k].value)][0]
    if best_loss.sum():
        out.append(in_blocks(losses[""][0], best_loss, found.blocks).score("forecast_ratio", "lower", None, 1.0))
    for share in INTERVALS:
        name = f"forecast_coverage_{share:.0%}".rstrip("%")
        out.append(coverage(found.quantiles, found, share).score(name, "none"))
        if study.tool(forecaster_of).widening is not None:
            out.append(coverage(found.drawn, found, share).score(f"{name}/drawn", "none"))
    return out


def simple_forecasts(study: Study, found: Origins) -> dict[str, Array]:
    """Quantiles EVERY (Q, N, C, H) of simpler models by name. Those that learn are fitted to training windows."""
    layout, out = found.layout, {}
    for name, season in found.seasons.items():
        out[f"last_{name}"] = seasonal_naive(found.long, season, layout.horizon, EVERY)
        out[f"{name}s"] = seasonal_quantiles(found.long, season, layout.horizon, EVERY, REMEMBERED)
    rows = evenly_spaced(len(study.train_items), min(LEARNT, len(study.train_items))).tolist()
    past, truth, later = divided([study.train_items[i] for i in rows], study.tool(forecaster_of).encoder)
    try:
        out["ridge"] = ridge.fit(past, truth, layout.period, EVERY)(found.past)
    except ValueError as error:
        study.note(f"the regression is not beside the model: {error}")
    one = partial(tree.fit, past, later, truth, layout.period)
    if study.effort.affordable(len(EVERY), 0, TREES, lambda: one(EVERY[:1])) < len(EVERY):
        study.note("trees on lags are not beside the model, to keep the minutes")
    else:
        out["tree"] = one(EVERY)(found.past, found.later)
    return out if study.limited else out | classical_forecasts(study, found)


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


def in_blocks(top: Array, bottom: Array, blocks: NDArray[np.int64]) -> Estimate:
    """The sum of `top` (N,) over that of `bottom` (N,), with an interval by Student's distribution whose units are
    blocks."""
    _, number = np.unique(blocks, return_inverse=True)
    found = ratio(*(np.bincount(number, weights=v).astype(np.float64) for v in (top, bottom)))
    if found.low is None or found.high is None:
        return found
    wider = float(t.ppf(0.975, found.n - 1)) / Z95
    return replace(
        found,
        low=found.value + wider * (found.low - found.value),
        high=found.value + wider * (found.high - found.value),
    )


def scaled_error(quantiles: Array, found: Origins) -> Estimate:
    """Raises Unmeasurable if no column changes from one period to the next."""
    each = scaled_errors(quantiles[EVERY.index(0.5)], found.truth, found.past, found.layout.period)
    there = np.isfinite(each).any(1)
    if not there.any():
        raise Unmeasurable("no column changes from one period to the next, so that errors have no scale")
    return in_blocks(np.nanmean(each[there], 1), np.ones(there.sum()), found.blocks[there])


def coverage(quantiles: Array, found: Origins, share: float) -> Estimate:
    low, high = (quantiles[EVERY.index(p)] for p in INTERVALS[share])
    inside = in_blocks(*held(low, high, found.truth), found.blocks)
    if inside.low is None or inside.high is None:
        return inside
    return replace(inside, low=max(0.0, inside.low), high=min(1.0, inside.high))


# --------------------------------------------------------------------------- verdict

HONEST = (0.8, 0.97)  # good: 90% intervals hold so much
WORSE = 1.1  # noise: a loss above so many times that of the best simpler model


def judge_forecasts(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on forecasts beside simpler ones; None without these."""
    ratio, held_90 = scores.get("forecast_ratio"), scores.get("forecast_coverage_90")
    losses = {k.partition("/")[2]: s for k, s in scores.items() if k.startswith("forecast_crps/")}
    if ratio is None or held_90 is None or not losses:
        return None
    best = BESIDE[min(losses, key=lambda k: losses[k].value)].removeprefix("of ")
    within = "" if ratio.low is None or ratio.high is None else f", {ratio.low:.2f} to {ratio.high:.2f}"
    numbers = f"(quantile loss {ratio.value:.2f} times as large{within}; 90% intervals hold {held_90.value:.0%})"
    if ratio.value > WORSE:
        return "noise", f"A simpler forecast is better: {best} {numbers}."
    if not HONEST[0] <= held_90.value <= HONEST[1]:
        less = "less certain than they could be" if held_90.value > HONEST[1] else "too certain"
        return "recognisable", f"The forecasts are {less}, beside {best} {numbers}."
    if ratio.value >= 1:
        return "recognisable", f"The forecasts are not better than the best simpler one, {best} {numbers}."
    if ratio.high is None:
        return "cannot tell", (
            f"The forecasts are better than the best simpler one, {best} {numbers}, in a single stretch as long as the "
            "horizon. Hold out more: `data.held`."
        )
    return "good", f"The forecasts are better than the best simpler one, {best} {numbers}."


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
    "forecast_ratio": ScoreWords(
        "error of the forecast distribution, as a share of that of the best simpler model",
        "Below 1, the model is better on the same values.",
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
    "drawn": "before they were calibrated",
    **{f"last_{name}": f"of repeating the last {name}" for name in (*SEASONS, "season")},
    **{f"{name}s": f"of the quantiles of the last {REMEMBERED} {name}s" for name in (*SEASONS, "season")},
    "ridge": "of a ridge regression on the last periods",
    "tree": "of gradient-boosted trees on lags",
    **{name: f"of {model.name}" for name, model in classical.MODELS.items()},
}
METRICS = [
    Metric("foreseen_series", series_only, foreseen, brief=True, words=WORDS, beside=BESIDE, judge=judge_forecasts)
]
