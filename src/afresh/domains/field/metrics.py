"""How long and how honestly rollouts follow held-out trajectories, beside models that know little or nothing.

Of pairs of an input and an output, a rollout is one draw of the output. Fields are in deviations of each channel, so
that scores with units can be averaged over channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space
from afresh.core.evidence import Word
from afresh.core.plural import counted, digits
from afresh.domains.field.calibration import (
    Ranks,
    Spread,
    coverage,
    rank_histogram,
    ranks,
    spread_and_error,
    spread_skill,
)
from afresh.domains.field.held_rollouts import HeldRollouts, held_rollouts, kept_quantities
from afresh.domains.field.kind import FIELD
from afresh.domains.field.rollout import KEEP, SPREAD
from afresh.domains.field.scores import (
    absolute_error,
    correlation,
    correlation_times,
    crps,
    over_trajectories,
    relative_l2,
    vrmse,
)
from afresh.domains.field.spectra import BANDS, mean_spectrum, spectrum_errors
from afresh.engine.evaluation.estimate import Array, Estimate, jackknife
from afresh.engine.evaluation.study import study_of


def fields_only(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for fields, else the reason why not."""
    return None if kind is FIELD else f"follows fields in time, not {kind.plural}"


def rollouts_of(evidence: Evidence) -> HeldRollouts:
    return study_of(evidence).once("rollouts of fields", lambda: evidence.tool(held_rollouts))


def _mean(scores: Array) -> Estimate:
    """The mean over leads and channels, with an interval over trajectories."""
    with np.errstate(invalid="ignore"):
        return over_trajectories(np.nanmean(scores.reshape(len(scores), -1), axis=1))


# --------------------------------------------------------------------------- one prediction


def followed(evidence: Evidence) -> list[Score]:
    """The error of the mean of the members, after one step and over all leads, and the time of correlation; those of
    simpler models beside them. `control`: the best of these."""
    found = rollouts_of(evidence)
    found.must_be_told()
    predictions = {"": found.ensemble.mean(0), **found.simpler}
    if not found.timed:
        mean = np.broadcast_to(found.learnt.mean((0, 1)), found.truth.shape)
        return _rows(
            "field_relative_l2", {"": predictions[""], "mean": mean}, partial(_score, relative_l2, found.truth)
        )
    every = partial(_score, vrmse, found.truth)
    out = _rows("rollout_vrmse", predictions, every)
    out += _rows("rollout_vrmse_first", {k: p[:, :1] for k, p in predictions.items()}, every)
    step = float(found.encoder.step) or 1.0

    def correlated(prediction: Array) -> Estimate:
        times = correlation_times(correlation(prediction, found.truth), step)
        estimate = times.estimate()
        study_of(evidence).note(f"time of correlation: {estimate.note}" if estimate.note else "")
        return estimate

    return out + _rows("rollout_correlation_time", predictions, correlated, higher=True)


def _score(score: Callable[[Array, Array], Array], truth: Array, prediction: Array) -> Estimate:
    return _mean(score(prediction, truth[:, : prediction.shape[1]]))


def _rows(
    name: str, predictions: Mapping[str, Array], measure: Callable[[Array], Estimate], higher: bool = False
) -> list[Score]:
    estimates = {k: measure(p) for k, p in predictions.items()}
    others = [e.value for k, e in estimates.items() if k and np.isfinite(e.value)]
    control = (max if higher else min)(others, default=None)
    better = "higher" if higher else "lower"
    return [
        e.score(f"{name}/{k}" if k else name, better, None, None if k else control)  # type: ignore[arg-type]
        for k, e in estimates.items()
    ]


# --------------------------------------------------------------------------- ensembles


def calibrated(evidence: Evidence) -> list[Score]:
    """The CRPS beside what needs no model, and whether the spread of the members is as large as their error."""
    found = rollouts_of(evidence)
    found.must_be_told()
    several, noise = len(found.ensemble) > 1, found.noise
    score = crps(found.ensemble, found.truth) if several else absolute_error(found.ensemble[0], found.truth)
    others = {k: _mean(absolute_error(p, found.truth)) for k, p in found.simpler.items()}
    others["climatology"] = _mean(crps(found.climate, found.truth))
    out = [_mean(score).score("rollout_crps", "lower", None, min(e.value for e in others.values()))]
    out += [e.score(f"rollout_crps/{k}", "lower") for k, e in others.items()]
    if not several:
        study_of(evidence).note("the run draws the same future each time, so its spread is not scored")
        return out
    if noise.starts:
        out.append(Score(KEEP, float(noise.keep), None, None, noise.starts, "none"))
    if noise.spread is not None:
        out.append(Score(SPREAD, noise.spread, None, None, noise.starts, "none"))
    return out + _spread(found.ensemble, found.truth)


def _spread(ensemble: Array, truth: Array) -> list[Score]:
    """Whether the spread of the members is as large as their error, with intervals over trajectories."""
    n, spread, held = len(truth), spread_and_error(ensemble, truth), ranks(ensemble, truth)

    def over_leads(rows: NDArray[np.intp]) -> float:
        """The mean over leads of the ratio of spread to error."""
        ratios = [e.value for e in spread_skill(Spread(spread.variance[rows], spread.error[rows]))]
        return float(np.nanmean(ratios))

    every = np.arange(n)
    ratio, low, high = over_leads(every), None, None
    if n > 1:
        low, high = jackknife(ratio, [over_leads(every[every != i]) for i in range(n)])
        low = max(0.0, low)
    out = [Score("rollout_spread_skill", ratio, low, high, n, "none", floor=1.0)]
    together = Ranks(held.shares.mean(1, keepdims=True), held.exchanged)
    for share in (0.5, 0.9):
        (estimate,) = coverage(together, share)
        out.append(estimate.score(f"rollout_coverage_{share:.0%}".replace("%", ""), "none", share))
    by_lead = coverage(held, 0.9)
    out += [by_lead[k - 1].score(f"rollout_coverage_90/step_{k}", "none", 0.9) for k in LEADS if k <= len(by_lead)]
    histogram = rank_histogram(held)
    uneven, floor = histogram.unevenness, histogram.expected
    return [*out, Score("rollout_ranks", uneven, None, None, n, "lower", floor=floor)]


# --------------------------------------------------------------------------- statistics


def statistics(evidence: Evidence) -> list[Score]:
    """How far the energy spectrum of rollouts is from the truth's (`floor`: that of trajectories of training), and by
    how much what the system conserves drifts."""
    found = rollouts_of(evidence)
    ring, spacing = found.encoder.periodic, found.encoder.spacing
    out = []
    if len(left := found.left[found.left > 0]):
        out.append(Score("rollout_left", len(left) / found.left.size, None, None, found.left.size, "lower", floor=0.0))
        out.append(Score("rollout_held", float(left.min() - 1), None, None, found.left.size, "higher"))
    if min(found.truth.shape[3:]) >= 6:
        truth = mean_spectrum(found.truth, ring, spacing)
        errors = spectrum_errors(mean_spectrum(found.ensemble, ring, spacing), truth)
        # The spectrum of single trajectories differs, so the floor is of as many others, in turn.
        others = np.resize(np.arange(len(found.learnt)), len(found.truth))
        floor = spectrum_errors(mean_spectrum(found.learnt[others], ring, spacing), truth)
        for band in BANDS:
            error, bias = errors[band].error, errors[band].bias
            out.append(error.score(f"rollout_spectrum_{band}", "lower", floor[band].error.value))
            out.append(bias.score(f"rollout_spectrum_{band}/bias", "none", floor[band].bias.value))
    if found.timed and (kept := kept_quantities(found.learnt)):
        space = tuple(range(3, found.truth.ndim))
        means = found.ensemble.mean(tuple(a + 1 for a in space))[..., kept]  # (members, trajectories, time, kept)
        drift = np.sqrt(np.square(means - found.truth.mean(space)[None, ..., kept]).mean((0, 2, 3)))
        out.append(over_trajectories(drift).score("rollout_drift", "lower", 0.0))
    return out


# --------------------------------------------------------------------------- verdict

NEARLY = 0.9  # noise: an error of the first step above this share of that of the best model without a network
SMOOTH = -1.0  # blurred: the logarithm of the energy at high wavenumbers is below the truth's by more
CALM = 0.1  # collapsed: a spread below this share of the error
CALIBRATED = (0.75, 0.98)  # good: the share of truths within 90% intervals, at each of LEADS
LEADS = (1, 5, 10)  # steps after which it is told how many truths the intervals hold


def judge_rollouts(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on rollouts; None without their scores."""
    first, time = scores.get("rollout_vrmse_first"), scores.get("rollout_correlation_time")
    if first is None or time is None or first.control is None or time.control is None:
        return _judge_pairs(scores)
    left, until = scores.get("rollout_left"), scores.get("rollout_held")
    leave = (
        ""
        if left is None or until is None
        else (
            f"; {left.value:.0%} of {counted(left.n, 'rollout')} leave what was seen in training, the first after "
            f"{counted(round(until.value), 'step')}, which are scored"
        )
    )
    numbers = (
        f"(error of one step {digits(first.value)}, of the best simpler model {digits(first.control)}; correlated for "
        f"{time.value:.3g} in time, the simpler one for {time.control:.3g}{leave})"
    )
    smooth, ratio = scores.get("rollout_spectrum_high/bias"), scores.get("rollout_spread_skill")
    if first.value > NEARLY * first.control:
        return "noise", f"A step of the model is no better than a simpler one's {numbers}."
    if ratio is not None and ratio.value < CALM:
        return "collapsed", f"The futures of one state are nearly the same, although they are wrong {numbers}."
    if smooth is not None and smooth.value < SMOOTH:
        return "blurred", f"The model follows the system, but fine structures lose their energy {numbers}."
    if left is not None:
        return "recognisable", f"The model's steps are good, but its rollouts do not stay like the data {numbers}."
    if time.value <= time.control:
        return "recognisable", f"The model's steps are good, but its rollouts do not last longer {numbers}."
    if (held := scores.get("rollout_coverage_90")) is None:
        return "good", f"Rollouts follow the truth longer than simpler ones; one future tells no spread {numbers}."
    by_lead = [s for k in LEADS if (s := scores.get(f"rollout_coverage_90/step_{k}"))]
    word: Word = "good" if all(CALIBRATED[0] <= s.value <= CALIBRATED[1] for s in (held, *by_lead)) else "recognisable"
    apart = " of trajectories by which they were not chosen" if KEEP in scores else ""
    first_held = f", {by_lead[0].value:.0%} after one step" if by_lead else ""
    return word, (
        f"Rollouts follow the truth longer than simpler ones, and their 90% intervals hold {held.value:.0%} of what "
        f"came{first_held}{apart} {numbers}."
    )


def _judge_pairs(scores: Mapping[str, Score]) -> Judgement | None:
    """The judgement on outputs of inputs."""
    error, held = scores.get("field_relative_l2"), scores.get("rollout_coverage_90")
    if error is None or error.control is None:
        return None
    numbers = f"(relative error {digits(error.value)}, of the mean output {digits(error.control)})"
    if error.value > NEARLY * error.control:
        return "noise", f"The model tells hardly more than the mean output {numbers}."
    if held is None:
        return "good", f"Outputs follow inputs {numbers}."
    word: Word = "good" if CALIBRATED[0] <= held.value <= CALIBRATED[1] else "recognisable"
    return word, f"Outputs follow inputs, and 90% intervals hold {held.value:.0%} of what came {numbers}."


FOLLOWED = {
    "rollout_vrmse": ScoreWords(
        "error of rollouts, in deviations over space (VRMSE)",
        "The error of the mean of the members over all leads; the mean of the true state would have 1.",
        Question.PREDICTS,
    ),
    "rollout_vrmse_first": ScoreWords(
        "error of one step (VRMSE)", "The same for the first state of a rollout alone.", Question.PREDICTS
    ),
    "rollout_correlation_time": ScoreWords(
        "time of correlation",
        "How long the correlation of the mean of the members with the truth stays above .8, in units of time.",
        Question.PREDICTS,
    ),
    "field_relative_l2": ScoreWords(
        "relative error of outputs (L2)",
        "The norm of the error of the mean of the members divided by that of the output.",
        Question.PREDICTS,
    ),
}
CALIBRATION = {
    "rollout_crps": ScoreWords(
        "continuous ranked probability score (CRPS)",
        "The distance of the members from the truth, less what they differ from each other; the absolute error of a "
        "model that draws one future.",
        Question.PREDICTS,
    ),
    "rollout_spread_skill": ScoreWords(
        "spread of the members, as a share of their error",
        "1 if the members differ from each other as much as from the truth; the mean over leads.",
        Question.VARIED,
    ),
    "rollout_coverage_50": ScoreWords(
        "truths within the 50% interval", "The share of values, over all leads.", Question.VARIED
    ),
    "rollout_coverage_90": ScoreWords(
        "truths within the 90% interval", "The share of values, over all leads.", Question.VARIED
    ),
    KEEP: ScoreWords(
        "steps for which members keep their noise",
        "Chosen on other held-out trajectories, with the factor below, so that 90% intervals hold 90% of the truths.",
        Question.VARIED,
    ),
    SPREAD: ScoreWords(
        "by how much more members differ than in training",
        "The factor with which 90% intervals hold 90% of the truths after one step, on other held-out trajectories.",
        Question.VARIED,
    ),
    "rollout_ranks": ScoreWords(
        "unevenness of the ranks of the truth among the members",
        "The share of truths that would need another rank; a calibrated ensemble has the value for real data.",
        Question.VARIED,
    ),
}
STATISTICS = {
    **{
        f"rollout_spectrum_{band}": ScoreWords(
            f"error of the spectrum at {band} wavenumbers",
            "The mean difference of the logarithms of the energy; 0.1 is about a tenth of the energy.",
            Question.REAL,
        )
        for band in BANDS
    },
    "rollout_left": ScoreWords(
        "rollouts that leave what was seen in training",
        "Their share: values that are not finite, or far outside of the range of the training data.",
        Question.FOLLOWS,
    ),
    "rollout_held": ScoreWords(
        "steps before a rollout leaves what was seen in training",
        "Steps that all rollouts hold, over which they are scored.",
        Question.FOLLOWS,
    ),
    "rollout_drift": ScoreWords(
        "drift of what is conserved",
        "By how much means over space that do not change in the data change in rollouts, in deviations.",
        Question.FOLLOWS,
    ),
}
BESIDE = {
    "persistence": "of the first state held",
    "linear": "of a linear model",
    "climatology": "of states of training drawn at random",
    "mean": "of the mean output",
    **{f"step_{k}": f"at step {k}" for k in LEADS},
    "bias": "with its sign: below 0 is too smooth",
}
METRICS = [
    Metric("rollouts", fields_only, followed, brief=True, words=FOLLOWED, beside=BESIDE, judge=judge_rollouts),
    Metric("calibration_of_rollouts", fields_only, calibrated, brief=True, words=CALIBRATION, beside=BESIDE),
    Metric("statistics_of_rollouts", fields_only, statistics, brief=True, words=STATISTICS, beside=BESIDE),
]
