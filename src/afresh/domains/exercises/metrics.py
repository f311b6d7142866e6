"""How well a model foresees whether answers are right, beside models of knowledge that are not networks.

Every held-out outcome is predicted from the answers before it: those of learners that training has not seen, or the
last ones of learners that it has (`data.split=future`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Score, Space
from afresh.domains.exercises.history import ANSWERS
from afresh.domains.exercises.knowledge import bkt, learning, pfa
from afresh.domains.exercises.knowledge.answers import Answers, Predictor, as_answers, tables
from afresh.engine.evaluation.estimate import Array, Estimate, jackknife, leave_out
from afresh.engine.evaluation.score_descriptions import read_words
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of

LN2 = float(np.log(2))  # nats an answer of foreseeing nothing
BINS = 10  # of equal size, for calibration
FILTER_STEPS = 100  # half of what a run's own filter takes
MOST = 500  # learners that baselines are fitted to, and as many that are predicted; more change the third digit
Measure = Callable[[NDArray[np.bool_], Array], float]  # outcomes and chances (N,) each


def answers_only(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for histories of answers, else the reason why not."""
    return None if kind is ANSWERS else f"foresees answers to exercises, not {kind.plural}"


def auc(right: NDArray[np.bool_], chance: Array) -> float:
    """The share of pairs of a right and a wrong answer whose chances are in that order, ties counted half (Mann and
    Whitney 1947)."""
    from scipy.stats import rankdata

    ranks, ones = rankdata(chance), int(right.sum())
    zeros = len(right) - ones
    return float((ranks[right].sum() - ones * (ones + 1) / 2) / (ones * zeros)) if ones and zeros else 0.5


def log_loss(right: NDArray[np.bool_], chance: Array) -> float:
    """Nats an answer."""
    p = np.clip(np.where(right, chance, 1 - chance), 1e-7, 1)
    return float(-np.log(p).mean())


def calibration_error(right: NDArray[np.bool_], chance: Array) -> float:
    """The mean distance between chances and the share that was right, in BINS groups of equal size of similar chance
    (Naeini, Cooper and Hauskrecht 2015, eq. 1, with groups of equal size)."""
    order = np.argsort(chance, kind="stable")
    groups = [g for g in np.array_split(order, BINS) if len(g)]
    return float(sum(len(g) * abs(right[g].mean() - chance[g].mean()) for g in groups) / len(right))


MEASURES: dict[str, tuple[Measure, bool]] = {  # and whether higher is better
    "answers_auc": (auc, True),
    "answers_log_loss": (log_loss, False),
    "answers_calibration_error": (calibration_error, False),
}


def estimated(measure: Measure, right: Sequence[NDArray[np.bool_]], chance: Sequence[Array]) -> Estimate:
    """A measure over all answers of some learners, with an interval that leaves out whole learners."""
    value = measure(np.concatenate(right), np.concatenate(chance))
    if len(right) < 2:
        return Estimate(value, None, None, len(right))
    groups = leave_out(len(right), min(20, len(right)))
    without = [
        measure(*(np.concatenate([r for r, k in zip(rows, keep, strict=True) if k]) for rows in (right, chance)))
        for keep in groups
    ]
    low, high = jackknife(value, without)
    return Estimate(value, min(low, value), max(high, value), sum(map(len, right)))


def baselines(
    train: Sequence[Answers], names: tuple[dict[str, int], dict[str, int]], brief: bool = False
) -> dict[str, Predictor]:
    """Fitted to training learners: the share of right answers of each exercise, BKT with forgetting, PFA, and the
    filter of what practice teaches, unless there are too many skills for it. `brief`: only the first and PFA, which are
    fitted at once."""
    items, skills = map(len, names)
    found = {
        "exercise": shares(train, items),
        "pfa": pfa.fit(train, items, skills),
    }
    if brief:
        return found
    found["bkt"] = bkt.fit(train, skills, forgets=True)
    if skills <= learning.MOST_SKILLS:
        place = np.full(items, -1)
        for a in train:
            place[a.items[a.items >= 0]] = a.skills[a.items >= 0]
        found["filter"] = learning.predictor(learning.fit(train, place.tolist(), skills, steps=FILTER_STEPS))
    return found


def shares(train: Sequence[Answers], items: int) -> Predictor:
    """What exercise it is, and nothing of the learner: the share of right answers, with one of each added."""
    place, right = (np.concatenate([getattr(a, k) for a in train]) for k in ("items", "right"))
    known = place >= 0
    n = np.bincount(place[known], minlength=items) + 2.0
    share = (np.bincount(place[known], right[known], minlength=items) + 1) / n
    mean = float(right.mean())
    return lambda a: np.where(a.items >= 0, share[a.items], mean)


def foreseen(evidence: Evidence) -> list[Score]:
    """AUC, log loss and calibration error of the held-out outcomes, and how much the chances differ; those of the
    baselines beside them. `control`: the best baseline."""
    study = study_of(evidence)
    chances = own_chances(study)
    names = tables([i.value for i in study.train_items])
    held = [as_answers(i.value, *names) for i in study.heldout_items]
    right = [a.right[a.counted] for a in held]
    if len(np.unique(np.concatenate(right))) < 2:
        raise Unmeasurable("all held-out answers are right, or all are wrong")
    few = slice(0, MOST)
    fitted = baselines([as_answers(i.value, *names) for i in study.train_items[few]], names, study.limited)
    theirs = {name: [predict(a)[a.counted] for a in held[few]] for name, predict in fitted.items()}
    if len(study.train_items) > MOST:
        study.note(f"the baselines of answers are fitted to {MOST} of {len(study.train_items):,} training learners")
    out = []
    for name, (measure, higher) in MEASURES.items():
        found = {k: estimated(measure, right[few], v) for k, v in theirs.items()}
        best = (max if higher else min)(e.value for e in found.values())
        better = "higher" if higher else "lower"
        out.append(estimated(measure, right, chances).score(name, better, None, best))  # type: ignore[arg-type]
        out += [e.score(f"{name}/{k}", better) for k, e in found.items()]  # type: ignore[arg-type]
    rival = theirs[max(theirs, key=lambda k: auc(np.concatenate(right[few]), np.concatenate(theirs[k])))]
    pairs = [np.stack(both, 1) for both in zip(chances[few], rival, strict=True)]
    lead = estimated(lambda r, p: auc(r, p[:, 0]) - auc(r, p[:, 1]), right[few], pairs)
    out.append(lead.score("answers_lead", "higher"))
    spread = float(np.std(np.concatenate(chances)))
    most = max(float(np.std(np.concatenate(v))) for v in theirs.values())
    return [*out, Score("answers_spread", spread, None, None, sum(map(len, chances)), "none", control=most)]


def own_chances(study: Study) -> list[Array]:
    """The model's chance of a right answer, of each counted outcome of each held-out learner.

    An outcome that came about was foreseen with exp(-nats); what it leaves is the chance of the other one, since after
    an exercise a model gives no other token a chance that is worth counting.
    """
    nats = study.token_nats()
    if nats is None:
        raise Unmeasurable("the family does not tell how likely each outcome is")
    p = nats.neg().exp().double().numpy()
    out, at = [], 0
    for item in study.heldout_items:
        right = np.array([a.correct for a in item.value.answers[item.value.known :]])
        actual = p[at : at + len(right)]
        out.append(np.where(right, actual, 1 - actual))
        at += len(right)
    if at != len(p):
        raise Unmeasurable("the model's window is shorter than that of the data")
    return out


# --------------------------------------------------------------------------- verdict

SAME = 0.1  # collapsed: chances differ less than this share of how those of a baseline differ
CHANCE, TOLD = 0.5, 0.25  # noise: of the way of the best baseline's AUC from chance, less than this share
NEARLY = 0.9  # good: of that way, at least this share, and chances are no worse than those of the exercise alone


def judge_answers(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on chances of answers, beside models of knowledge that are no networks; None without these."""
    auc, lead, loss, spread = (scores.get(f"answers_{n}") for n in ("auc", "lead", "log_loss", "spread"))
    alone = scores.get("answers_log_loss/exercise")
    if auc is None or auc.control is None or lead is None or loss is None or spread is None or alone is None:
        return None
    numbers = f"(AUC {auc.value:.3f}, of the best simpler model {auc.control:.3f}; 0.5 is chance)"
    if spread.control and spread.value < SAME * spread.control:
        return "collapsed", (
            f"The model gives nearly the same chance to every answer of every learner: chances differ by "
            f"{spread.value:.3f}, those of a simpler model by {spread.control:.3f}."
        )
    way = auc.control - CHANCE
    if way <= 0:
        return "cannot tell", f"Neither the model nor a simpler one foresees the answers {numbers}."
    reached = 1 + lead.value / way  # of the same answers, so that the luck of the learners does not count
    if reached < TOLD:
        return "noise", f"The model hardly tells right answers from wrong ones {numbers}."
    if loss.value > LN2 and loss.value > alone.value:
        return "memorised", (
            f"The model is far too sure of its chances on learners that it has not seen: a surprise of "
            f"{loss.value:.2f} nats an answer, where even to foresee nothing has {LN2:.2f}."
        )
    if reached >= NEARLY and loss.value <= alone.value:
        return "good", f"The model foresees answers as well as the best simpler model, or nearly so {numbers}."
    return "recognisable", f"The model foresees answers, but a simpler one does it better {numbers}."


WORDS = read_words(__file__)
BESIDE = {
    "exercise": "of the share of right answers of each exercise",
    "bkt": "of Bayesian knowledge tracing",
    "pfa": "of performance factors analysis",
    "filter": "of the filter of what practice teaches",
}
METRICS = [
    Metric("foreseen_answers", answers_only, foreseen, brief=True, words=WORDS, beside=BESIDE, judge=judge_answers)
]
