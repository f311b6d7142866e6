"""Whether a run of alignment is healthy: what its metrics show, in words, with a number and what to do next.

Pure functions over the rows of metrics.jsonl, {"step": int, name: number, ...}. Rows of one step are read as one. A
name that a method does not log has no rules; a number that is not finite counts as missing, and is told. The first
value of a name is the base's. What is noisy from batch to batch is judged by the median of its last WINDOW rows, what
is measured at evaluations by each of them. An alarm is about the present: it holds at the last row, whose value is
told, and its step is since when it has held without a break. No rule can tell what a reward means: look at samples too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from afresh.alignment.monitoring.rows import (
    WINDOW,
    Row,
    Series,
    by_step,
    change,
    lasting,
    series,
    since,
    spread,
    together,
)
from afresh.core import UserError

KL_LIMIT = 10.0  # nats a sample: as far as the best of 60,000 samples is (log n - (n - 1) / n)
CREEP_ROWS = 20  # over which divergence is compared with reward, their first half with their second
CREEP_NATS = 0.5  # of growth between the halves: less is not worth a warning
NOISE = 2.0  # standard errors from which a difference is taken as real: 1 in 20 by chance, at one look
STILL = 1.0  # standard errors: a reward that rose by less is not said to grow. Stricter would accuse slow learners
IMPOSSIBLE = 3.0  # standard errors: a divergence is never negative, so that an estimate so far below 0 is wrong
ROUNDING = 1e-3  # nats: sums of some hundred float32 log-probabilities differ by less when the policies are the same
ENTROPY_LEFT = 0.3  # of the base's: groups of samples have then little to be compared by
LENGTH_DRIFT = 0.5  # either way: prompts and batches alone vary the mean length by less
DIVERSITY_LEFT = 0.6  # of the base's: a policy that answers in two ways instead of many has about a half left
FLAT = 0.8  # of groups without a signal: four in five samples are then drawn for nothing
GAP = 0.05  # nats a step: over 20 steps that lean one way, a ratio is off by a factor of e
CLIPPED = 0.5  # of ratios: most of the batch has no gradient any more
HELDOUT_RISE = 0.1  # of the loss at first: what is forgotten, or learnt by heart, is no longer noise
ACCURACY_FALL = 0.05  # between medians: of 300 held-out pairs, chance moves their difference by half as much
EVALUATIONS = 2  # in a row: one bad evaluation of many is chance


@dataclass(frozen=True)
class Alarm:
    """What is wrong, the step since when, and a sentence or two: the number, its limit, what to do next."""

    name: str
    step: int
    said: str


# --------------------------------------------------------------------------- rules

Rule = Callable[[Sequence[Row]], Alarm | None]


def _not_finite(rows: Sequence[Row]) -> Alarm | None:
    bad = [n for n, v in rows[-1].items() if isinstance(v, float) and not math.isfinite(v)]
    if not bad:
        return None
    said = (
        f"Not a finite number: {', '.join(bad)}. What it was made of is broken, and so may be the weights: go back to "
        "the last good checkpoint, lower the learning rate, and see that the reward is finite for every sample."
    )
    return Alarm("not finite", rows[-1]["step"], said)


def _creep(rows: Sequence[Row]) -> Alarm | None:
    pairs = together(rows, "kl", "reward")

    def grown(i: int, which: int) -> tuple[float, float]:
        recent = pairs[max(0, i + 1 - CREEP_ROWS) : i + 1]
        found = change([values[which] for _, values in recent], CREEP_ROWS // 2)
        return found if found is not None and len(recent) == CREEP_ROWS else (0.0, 0.0)

    def holds(i: int) -> bool:
        (kl, kl_error), (reward, reward_error) = grown(i, 0), grown(i, 1)
        return kl > max(CREEP_NATS, NOISE * kl_error) and reward <= STILL * reward_error

    step = since([s for s, _ in pairs], holds)
    if step is None:
        return None
    last = len(pairs) - 1
    said = (
        f"Over the last {CREEP_ROWS} rows the divergence grew by {grown(last, 0)[0]:.3g} nats while the reward changed "
        f"by {grown(last, 1)[0]:.3g}, no growth beyond its noise. Stop here, raise beta, or lower the learning rate."
    )
    return Alarm("kl without reward", step, said)


def _negative(rows: Sequence[Row]) -> Alarm | None:
    kl, errors = series(rows, "kl"), dict(series(rows, "kl_error").pairs())

    def mean(i: int) -> tuple[float, float]:
        """Of the window up to i, with its standard error: of the errors, or else of the rows' own spread."""
        part = slice(max(0, i + 1 - WINDOW), i + 1)
        values, known = kl.values[part], [errors[s] for s in kl.steps[part] if s in errors]
        if len(known) == len(values):
            return sum(values) / len(values), math.hypot(*known) / len(values)
        return spread(values) if len(values) == WINDOW else (0.0, 0.0)

    def holds(i: int) -> bool:
        value, error = mean(i)
        return value < -max(ROUNDING, IMPOSSIBLE * error)

    step = since(kl.steps, holds)
    if step is None:
        return None
    value, error = mean(len(kl.values) - 1)
    said = (
        f"The mean divergence of the last rows is {value:.3g} nats, with a standard error of {error:.2g}: more than "
        f"{IMPOSSIBLE:g} of them below 0, and a divergence is never negative. Either the estimator is not for these "
        "samples, or the sampler does not draw what the trainer believes: set the temperature to 1, leave out top-k "
        "and top-p, and compare the log-probabilities of both."
    )
    return Alarm("negative kl", step, said)


def _length(rows: Sequence[Row]) -> Alarm | None:
    length, rise = series(rows, "length").smooth(), change(series(rows, "reward").values, WINDOW)
    if not length.values or length.values[0] <= 0 or rise is None or rise[0] <= NOISE * rise[1]:
        return None  # a reward that stands still has error 0, and no rise above it
    first, now = length.values[0], length.values[-1]
    step = length.since(lambda v: abs(v - first) > LENGTH_DRIFT * first)
    if step is None:
        return None
    said = (
        f"Samples went from {first:.3g} to {now:.3g} steps while the reward rose: it may be paid for length alone. "
        f"Score {'padding and repetition' if now > first else 'samples cut short'} to see, take a cost of length off "
        "the reward, and average losses over tokens instead of within samples."
    )
    return Alarm("length", step, said)


def _constant(rows: Sequence[Row]) -> Alarm | None:
    reward = series(rows, "reward")
    step = reward.since(lambda v: v == reward.values[-1])
    if step is None or reward.steps.index(step) > len(reward.steps) - WINDOW:
        return None
    if any(v > 0 for s, v in series(rows, "reward_deviation").pairs() if s >= step):
        return None
    said = (
        f"The reward has been {reward.values[-1]:.6g} since step {step}: there is nothing to prefer. If that is the "
        "most it can be, the work is done: stop. Otherwise give it degrees (the share of tests passed instead of all "
        "or none), or take requests that the base sometimes manages."
    )
    return Alarm("constant reward", step, said)


Evaluation = tuple[int, float, float]  # step, held-out reward, its standard error


def _evaluations(rows: Sequence[Row]) -> list[Evaluation]:
    return [(s, v, e) for s, (v, e) in together(rows, "heldout_reward", "heldout_reward_error") if e >= 0]


def _worse(seen: Sequence[Evaluation], errors: float) -> list[Evaluation | None]:
    """Of each evaluation: the best before it, where that is better by so many standard errors of the difference."""
    out: list[Evaluation | None] = []
    best = seen[0] if seen else (0, 0.0, 0.0)
    for step, value, error in seen:
        best = (step, value, error) if value > best[1] else best
        out.append(best if best[1] - value > errors * math.hypot(error, best[2]) else None)
    return out


def _over_optimised(rows: Sequence[Row]) -> Alarm | None:
    seen, reward = _evaluations(rows), series(rows, "reward")
    raw, smooth = reward.pairs(), reward.smooth().pairs()
    better = _worse(seen, NOISE)

    def at(step: int, of: Sequence[tuple[int, float]]) -> float:
        """At the step, or at the last before it that has one."""
        return next((v for s, v in reversed(of) if s <= step), math.nan)

    def holds(i: int) -> bool:
        best = better[i]
        return best is not None and at(seen[i][0], smooth) > at(best[0], smooth)

    step, last = since([s for s, _, _ in seen], holds), better[-1] if better else None
    if step is None or last is None or not all(map(holds, range(max(0, len(seen) - EVALUATIONS), len(seen)))):
        return None
    before, now = at(last[0], raw), at(seen[-1][0], raw)
    if now <= before:
        return None
    said = (
        f"Since step {last[0]} the reward rose from {before:.3g} to {now:.3g}, but the held-out one, which is not "
        f"trained on, fell from {last[1]:.3g} to {seen[-1][1]:.3g}, by more than {NOISE:g} standard errors: the reward "
        "is being exploited. Begin again with a mended reward, a higher beta or fewer steps."
    )
    return Alarm("over-optimisation", step, said)


def _lost(key: str, better: Callable[[float, float], float], limit: Callable[[Series], float]) -> Rule:
    """A number that was better before by more than a limit; `better` is max (of medians) or min."""

    def rule(rows: Sequence[Row]) -> Alarm | None:
        raw = series(rows, key)
        found = raw.smooth() if better is max else raw
        best = list(accumulate(found.values, better))
        step = since(found.steps, lambda i: abs(found.values[i] - best[i]) > limit(found))
        if step is None or abs(better(raw.values[-1], best[-1]) - raw.values[-1]) <= limit(found):
            return None
        at = found.steps[found.values.index(best[-1])]
        said = (
            f"The {key.replace('_', ' ')} is {raw.values[-1]:.4g}; at step {at} it was {best[-1]:.4g}, better by "
            f"more than {limit(found):.3g}. The policy forgets, or learns by heart: raise beta, take fewer steps or "
            "epochs, or bring more data."
        )
        return Alarm(key, step, said)

    return rule


def _level(key: str, above: float, said: str) -> Rule:
    """A number that is not to be above a limit, whatever the base had."""

    def rule(rows: Sequence[Row]) -> Alarm | None:
        found = series(rows, key)
        step = lasting(found, lambda v: v > above)
        return None if step is None else Alarm(key, step, said.format(found.values[-1], above))

    return rule


def _left(key: str, share: float, said: str) -> Rule:
    """A number of which at least a share of the base's is to be left."""

    def rule(rows: Sequence[Row]) -> Alarm | None:
        found = series(rows, key)
        if not found.values or found.values[0] <= 0:
            return None
        first, now = found.values[0], found.values[-1]
        step = lasting(found, lambda v: v < share * first)
        return None if step is None else Alarm(key, step, said.format(now, first, now / first, share))

    return rule


FAR = (
    "The policy is {:.3g} nats from its reference; the limit is {:g}. So far away a reward is mostly exploited: look "
    "at samples, then raise beta, lower the learning rate, or go back to an earlier checkpoint."
)
RULES: tuple[Rule, ...] = (
    _not_finite,
    _over_optimised,
    _creep,
    _negative,
    _constant,
    _length,
    _left(
        "entropy",
        ENTROPY_LEFT,
        "The entropy is {:.3g} nats a step, {:.3g} at first: {:.0%} is left, and the limit is {:.0%}. Samples of one "
        "request become the same, and nothing new is tried: raise beta, lower the learning rate, or raise the upper "
        "clip. A colder sampler or fewer steps would make it worse.",
    ),
    _left(
        "diversity",
        DIVERSITY_LEFT,
        "The diversity of samples is {:.3g}, {:.3g} at first: {:.0%} is left, and the limit is {:.0%}. The policy "
        "settles on few answers: look at samples, raise beta, or reward what differs (novelty).",
    ),
    _level(
        "flat",
        FLAT,
        "In {:.0%} of groups all samples have the same reward and teach nothing (limit {:.0%}). The reward is too "
        "coarse, or the requests are too easy or too hard: give part marks, take requests that succeed sometimes, or "
        "draw larger groups.",
    ),
    _level(
        "gap",
        GAP,
        "The trainer's log-probabilities are {:.3g} nats a step from the sampler's (limit {:g}): what is drawn is not "
        "what is trained. Use the same precision, temperature and weights for both, and refresh the sampler's weights "
        "after every step.",
    ),
    _level(
        "clipped",
        CLIPPED,
        "{:.0%} of the ratios are clipped (limit {:.0%}) and have no gradient: a batch is used for too many or too "
        "large steps. Lower the learning rate or take fewer epochs of each batch.",
    ),
    # Of the loss at first: a tenth of a loss close to 0 would be nothing.
    _lost("heldout_loss", min, lambda loss: HELDOUT_RISE * abs(loss.values[0])),
    _lost("accuracy", max, lambda _: ACCURACY_FALL),
)


def alarms(rows: Iterable[Row], kl_limit: float = KL_LIMIT) -> list[Alarm]:
    """What is wrong with the run at its last row; `kl_limit` is in nats a sample.

    Raises UserError for a limit that is not above 0, and for rows that cannot be read.
    """
    if not kl_limit > 0:
        raise UserError(f"The limit of the divergence is {kl_limit:g} nats. It is to be above 0, infinite for none.")
    merged = by_step(rows)
    far = _level("kl", kl_limit, FAR)
    return [a for rule in (far, *RULES) if merged and (a := rule(merged)) is not None]


def stop_reason(rows: Iterable[Row], patience: int = EVALUATIONS, errors: float = NOISE) -> str:
    """Why to stop, or "": at each of the last `patience` evaluations the held-out reward was below the best before it
    by more than `errors` standard errors of the difference. Evaluations without `heldout_reward_error` do not count.

    The best of many noisy evaluations is partly luck: where the truth stands still and evaluations are independent,
    runs of 10 evaluations are ended by mistake in 9% of cases, of 20 in 29%; with 3 errors in 0.1% and 1%. Where it
    rises by a fifth of an error at each of 20, 6%. The same requests and noise each time make mistakes rarer.
    Raises UserError for a patience below 1 or errors that are not above 0.
    """
    if patience < 1 or not errors > 0:
        raise UserError(f"patience {patience}, errors {errors:g}: patience is to be 1 or more, errors above 0.")
    seen = _evaluations(by_step(rows))
    better = _worse(seen, errors)
    if len(better) < patience or None in better[-patience:] or (best := better[-1]) is None:
        return ""
    now, value, error = seen[-1]
    return (
        f"The held-out reward was {best[1]:.4g} (standard error {best[2]:.2g}) at step {best[0]} and is {value:.4g} "
        f"({error:.2g}) at step {now}: below its best by more than {errors:g} standard errors of the difference, at "
        f"{patience} evaluation{'s' if patience > 1 else ''} in a row."
    )
