"""Alarms of alignment runs: problems that the metrics show, with values, limits and advice.

All functions work on the rows of metrics.jsonl, {"step": int, name: number, ...}. Rows of the same step are merged.
Metrics that a method does not log are not checked; a value that is not finite raises an alarm and is otherwise treated
as missing. The first value of a metric is that of the base model. Metrics of batches are noisy, so the median of the
last WINDOW rows is checked; metrics of evaluations are checked directly. An alarm is active at the last row, whose
value it states, and its step is the first from which on it has been active without interruption. The rules cannot know
what a reward means, so samples should be inspected as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from afresh.core import UserError
from afresh.engine.alignment.monitoring.rows import (
    WINDOW,
    Row,
    Series,
    both_finite,
    by_step,
    change,
    lasting,
    mean_and_error,
    series,
    since,
)
from afresh.engine.training.looks import MonitorLook

KL_LIMIT = 10.0  # nats per sample, which is the divergence of the best of 60,000 samples (log n - (n - 1) / n)
CREEP_ROWS = 20  # whose first half is compared with the second, in divergence and in reward
CREEP_NATS = 0.5  # growth of the divergence between the halves that is worth a warning
SIGNIFICANT = 2.0  # standard errors of a significant difference, which occurs by chance in 1 of 20 evaluations
NO_GROWTH = 1.0  # standard errors; a reward that rose by less does not grow. A higher limit would include slow learners
NEGATIVE_ERRORS = 3.0  # standard errors below 0 from which on an estimate of the divergence is wrong
BEYOND = 1.5  # times the distance that was asked for, if that is larger
ROUNDING = 1e-3  # nats; a larger difference of equal policies is not due to float32 sums of some hundred steps
MIN_ENTROPY = 0.3  # share of that of the base; with less, the samples of a group hardly differ
MAX_LENGTH_CHANGE = 0.5  # share of the first length; prompts and batches cause smaller changes
MIN_DIVERSITY = 0.6  # share of that of the base; a policy with two answers instead of many retains about half
MAX_FLAT = 0.8  # share of groups with equal rewards, from whose samples nothing is learnt
MAX_GAP = 0.05  # nats per step; if all have the same sign, a ratio over 20 steps is wrong by a factor of e
MAX_CLIPPED = 0.5  # share of ratios, which have no gradient
MAX_LOSS_RISE = 0.1  # share of the first loss; a larger rise is forgetting or memorisation, not noise
MAX_ACCURACY_FALL = 0.05  # between medians; with 300 held-out pairs, chance causes half as much
EVALUATIONS = 2  # consecutive bad evaluations of an alarm, as a single one may be due to chance


@dataclass(frozen=True)
class Alarm:
    """A problem, the step from which on it has existed, and a message with the value, its limit and advice."""

    name: str
    step: int
    message: str


# --------------------------------------------------------------------------- rules

Rule = Callable[[Sequence[Row]], Alarm | None]


def _not_finite(rows: Sequence[Row]) -> Alarm | None:
    bad = [n for n, v in rows[-1].items() if isinstance(v, float) and not math.isfinite(v)]
    if not bad:
        return None
    message = (
        f"Not a finite number: {', '.join(bad)}. The weights may be damaged: go back to the last good checkpoint, "
        "lower the learning rate, and check that the reward is finite for every sample."
    )
    return Alarm("not finite", rows[-1]["step"], message)


def _creep(rows: Sequence[Row]) -> Alarm | None:
    pairs = both_finite(rows, "kl", "reward")

    def grown(i: int, which: int) -> tuple[float, float]:
        recent = pairs[max(0, i + 1 - CREEP_ROWS) : i + 1]
        growth = change([values[which] for _, values in recent], CREEP_ROWS // 2)
        return growth if growth is not None and len(recent) == CREEP_ROWS else (0.0, 0.0)

    def holds(i: int) -> bool:
        (kl, kl_error), (reward, reward_error) = grown(i, 0), grown(i, 1)
        return kl > max(CREEP_NATS, SIGNIFICANT * kl_error) and reward <= NO_GROWTH * reward_error

    step = since([s for s, _ in pairs], holds)
    if step is None:
        return None
    last = len(pairs) - 1
    message = (
        f"Over the last {CREEP_ROWS} rows the divergence grew by {grown(last, 0)[0]:.3g} nats while the reward changed "
        f"by {grown(last, 1)[0]:.3g}, which is not a significant growth. Stop here, raise beta, or lower the learning "
        "rate."
    )
    return Alarm("kl without reward", step, message)


def _negative(rows: Sequence[Row]) -> Alarm | None:
    kl, errors = series(rows, "kl"), dict(series(rows, "kl_error").pairs())

    def mean(i: int) -> tuple[float, float]:
        """The mean of the window up to i and its standard error, from the logged errors or else from the rows."""
        part = slice(max(0, i + 1 - WINDOW), i + 1)
        values, known = kl.values[part], [errors[s] for s in kl.steps[part] if s in errors]
        if len(known) == len(values):
            return sum(values) / len(values), math.hypot(*known) / len(values)
        return mean_and_error(values) if len(values) == WINDOW else (0.0, 0.0)

    def holds(i: int) -> bool:
        value, error = mean(i)
        return value < -max(ROUNDING, NEGATIVE_ERRORS * error)

    step = since(kl.steps, holds)
    if step is None:
        return None
    value, error = mean(len(kl.values) - 1)
    message = (
        f"The mean divergence of the last rows is {value:.3g} nats, with a standard error of {error:.2g}. It is more "
        f"than {NEGATIVE_ERRORS:g} standard errors below 0, but a divergence is never negative. Either the estimator "
        "is not valid for these samples, or the sampler and the trainer use different distributions: set the "
        "temperature to 1, leave out top-k and top-p, and compare the log-probabilities of both."
    )
    return Alarm("negative kl", step, message)


def _length(rows: Sequence[Row]) -> Alarm | None:
    length, rise = series(rows, "length").smooth(), change(series(rows, "reward").values, WINDOW)
    if not length.values or length.values[0] <= 0 or rise is None or rise[0] <= SIGNIFICANT * rise[1]:
        return None  # a constant reward has an error of 0 and does not rise above it
    first, now = length.values[0], length.values[-1]
    step = length.since(lambda v: abs(v - first) > MAX_LENGTH_CHANGE * first)
    if step is None:
        return None
    message = (
        f"The length of samples went from {first:.3g} to {now:.3g} steps while the reward rose, so the reward may "
        f"depend on length alone. Check it for {'padding and repetition' if now > first else 'truncated samples'}, "
        "subtract a cost of length from the reward, and average losses over tokens instead of within samples."
    )
    return Alarm("length", step, message)


def _constant(rows: Sequence[Row]) -> Alarm | None:
    reward = series(rows, "reward")
    step = reward.since(lambda v: v == reward.values[-1])
    if step is None or reward.steps.index(step) > len(reward.steps) - WINDOW:
        return None
    if any(v > 0 for s, v in series(rows, "reward_deviation").pairs() if s >= step):
        return None
    message = (
        f"The reward has been {reward.values[-1]:.6g} since step {step}, so nothing can be learnt. If this is its "
        "maximum, stop the run. Otherwise use a reward with intermediate values (such as the share of tests that "
        "pass), or requests for which the base sometimes succeeds."
    )
    return Alarm("constant reward", step, message)


def _evaluations(rows: Sequence[Row]) -> list[MonitorLook]:
    return [MonitorLook(s, v, e) for s, (v, e) in both_finite(rows, "heldout_reward", "heldout_reward_error") if e >= 0]


def _worse(seen: Sequence[MonitorLook], errors: float) -> list[MonitorLook | None]:
    """For each evaluation, the best one before it, if it is better by more than `errors` standard errors of the
    difference; otherwise None."""
    out: list[MonitorLook | None] = []
    best = seen[0] if seen else MonitorLook(0, 0.0)
    for look in seen:
        best = look if look.value > best.value else best
        out.append(best if best.value - look.value > errors * math.hypot(look.error, best.error) else None)
    return out


def _over_optimised(rows: Sequence[Row]) -> Alarm | None:
    seen, reward = _evaluations(rows), series(rows, "reward")
    raw, smooth = reward.pairs(), reward.smooth().pairs()
    better = _worse(seen, SIGNIFICANT)

    def at(step: int, of: Sequence[tuple[int, float]]) -> float:
        """The value at the step, or at the last step before it that has one."""
        return next((v for s, v in reversed(of) if s <= step), math.nan)

    def holds(i: int) -> bool:
        best = better[i]
        return best is not None and at(seen[i][0], smooth) > at(best[0], smooth)

    step, last = since([look.step for look in seen], holds), better[-1] if better else None
    if step is None or last is None or not all(map(holds, range(max(0, len(seen) - EVALUATIONS), len(seen)))):
        return None
    before, now = at(last[0], raw), at(seen[-1][0], raw)
    if now <= before:
        return None
    message = (
        f"Since step {last[0]} the reward rose from {before:.3g} to {now:.3g}, but the held-out reward, which is not "
        f"optimised, fell from {last[1]:.3g} to {seen[-1][1]:.3g}, by more than {SIGNIFICANT:g} standard errors: the "
        "reward is being exploited. Start again with a better reward, a higher beta or fewer steps."
    )
    return Alarm("over-optimisation", step, message)


def _worsened(key: str, better: Callable[[float, float], float], limit: Callable[[Series], float]) -> Rule:
    """A rule for a metric that was better before by more than a limit. `better` is max (of medians) or min."""

    def rule(rows: Sequence[Row]) -> Alarm | None:
        raw = series(rows, key)
        values = raw.smooth() if better is max else raw
        best = list(accumulate(values.values, better))
        step = since(values.steps, lambda i: abs(values.values[i] - best[i]) > limit(values))
        if step is None or abs(better(raw.values[-1], best[-1]) - raw.values[-1]) <= limit(values):
            return None
        at = values.steps[values.values.index(best[-1])]
        message = (
            f"The {key.replace('_', ' ')} is {raw.values[-1]:.4g}; at step {at} it was {best[-1]:.4g}, better by "
            f"more than {limit(values):.3g}. The policy forgets its data or memorises: raise beta, train for fewer "
            "steps or epochs, or add data."
        )
        return Alarm(key, step, message)

    return rule


def _level(key: str, above: float, message: str) -> Rule:
    """A rule for a metric with an absolute limit."""

    def rule(rows: Sequence[Row]) -> Alarm | None:
        values = series(rows, key)
        step = lasting(values, lambda v: v > above)
        return None if step is None else Alarm(key, step, message.format(values.values[-1], above))

    return rule


def _remaining(key: str, share: float, message: str) -> Rule:
    """A rule for a metric that must retain at least a share of the base's value."""

    def rule(rows: Sequence[Row]) -> Alarm | None:
        values = series(rows, key)
        if not values.values or values.values[0] <= 0:
            return None
        first, now = values.values[0], values.values[-1]
        step = lasting(values, lambda v: v < share * first)
        return None if step is None else Alarm(key, step, message.format(now, first, now / first, share))

    return rule


TOO_FAR = (
    "The divergence from the reference is {:.3g} nats; the limit is {:g}. Rewards are mostly exploited at such a "
    "distance: inspect samples, then raise beta, lower the learning rate, or go back to an earlier checkpoint."
)
RULES: tuple[Rule, ...] = (
    _not_finite,
    _over_optimised,
    _creep,
    _negative,
    _constant,
    _length,
    _remaining(
        "entropy",
        MIN_ENTROPY,
        "The entropy is {:.3g} nats per step and was {:.3g} at first: {:.0%} is left, and the limit is {:.0%}. Samples "
        "of one request become equal and exploration ends: raise beta, lower the learning rate, or raise the upper "
        "clip. A lower temperature or fewer sampling steps would reduce it further.",
    ),
    _remaining(
        "diversity",
        MIN_DIVERSITY,
        "The diversity of samples is {:.3g} and was {:.3g} at first: {:.0%} is left, and the limit is {:.0%}. The "
        "policy is restricted to few answers: inspect samples, raise beta, or reward novelty.",
    ),
    _level(
        "flat",
        MAX_FLAT,
        "In {:.0%} of groups all samples have the same reward, so nothing is learnt from them (limit {:.0%}). The "
        "reward is too coarse, or the requests are too easy or too hard: use a reward with intermediate values, "
        "requests that sometimes succeed, or larger groups.",
    ),
    _level(
        "gap",
        MAX_GAP,
        "The log-probabilities of the trainer differ from those of the sampler by {:.3g} nats per step (limit {:g}). "
        "Use the same precision, temperature and weights for both, and update the sampler's weights after every step.",
    ),
    _level(
        "clipped",
        MAX_CLIPPED,
        "{:.0%} of the ratios are clipped (limit {:.0%}) and have no gradient, because each batch is used for too many "
        "or too large steps. Lower the learning rate or reuse each batch less often.",
    ),
    # Relative to the first loss, as the best loss may be close to 0.
    _worsened("heldout_loss", min, lambda loss: MAX_LOSS_RISE * abs(loss.values[0])),
    _worsened("accuracy", max, lambda _: MAX_ACCURACY_FALL),
)


def kl_limit_for(distance: float | None) -> float:
    """The limit of the divergence in nats for a run that is asked to go so far from its base."""
    return max(KL_LIMIT, BEYOND * (distance or 0.0))


def alarms(rows: Iterable[Row], kl_limit: float = KL_LIMIT) -> list[Alarm]:
    """The alarms that are active at the last row; `kl_limit` is in nats per sample.

    Raises UserError for a limit that is not above 0, and for invalid rows.
    """
    if not kl_limit > 0:
        raise UserError(f"The limit of the divergence must be above 0 nats (or infinite). Given: {kl_limit:g}.")
    merged = by_step(rows)
    far = _level("kl", kl_limit, TOO_FAR)
    return [a for rule in (far, *RULES) if merged and (a := rule(merged)) is not None]


def stop_reason(rows: Iterable[Row], patience: int = EVALUATIONS, errors: float = SIGNIFICANT) -> str:
    """`reward_fell` by the rows of metrics.jsonl."""
    return reward_fell(_evaluations(by_step(rows)), patience, errors)


def reward_fell(looks: Sequence[MonitorLook], patience: int = EVALUATIONS, errors: float = SIGNIFICANT) -> str:
    """The reason to stop by the evaluations of the held-out reward, or an empty string.

    A run should stop if the held-out reward of each of the last `patience` evaluations was below the best before it by
    more than `errors` standard errors of the difference. Evaluations without a standard error are ignored.

    The best of many noisy evaluations is partly due to chance. If the true reward is constant and evaluations are
    independent, 9% of runs with 10 evaluations are stopped by mistake, and 29% of runs with 20; with 3 errors, 0.1% and
    1%. If it rises by a fifth of an error at each of 20 evaluations, 6% are. Mistakes are rarer in practice, since all
    evaluations use the same requests and noise. Raises UserError for a patience below 1 or errors that are not above 0.
    """
    if patience < 1 or not errors > 0:
        raise UserError(f"patience must be at least 1 and errors above 0. Given: {patience}, {errors:g}.")
    seen = [look for look in looks if math.isfinite(look.error)]
    better = _worse(seen, errors)
    if len(better) < patience or None in better[-patience:] or (best := better[-1]) is None:
        return ""
    now, value, error = seen[-1][:3]
    return (
        f"The held-out reward was {best[1]:.4g} (standard error {best[2]:.2g}) at step {best[0]} and is {value:.4g} "
        f"({error:.2g}) at step {now}: below its best by more than {errors:g} standard errors of the difference, at "
        f"{patience} evaluation{'s' if patience > 1 else ''} in a row."
    )
