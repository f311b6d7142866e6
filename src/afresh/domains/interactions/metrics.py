"""Metrics of models that recommend: each held-out event, predicted from all that its user chose before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space, events
from afresh.domains.interactions.base_retention import RETAINED_WORDS, retained
from afresh.domains.interactions.baselines import ease, ials, incidence, item_knn, popularity
from afresh.domains.interactions.list_metrics import (
    calibration,
    coverage,
    gini,
    intra_list_diversity,
    novelty,
    popularity_lift,
    users_of,
)
from afresh.domains.interactions.ranking import Items, Ranked, Scorer, accuracy, ndcg, over_users, rank_all
from afresh.domains.interactions.recommend import Recommender, recommender_of, scorer_of, users_for_weights
from afresh.engine.evaluation.estimate import Estimate
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of

K = 10
QUESTIONS, FEW_QUESTIONS = 10_000, 1_000  # held-out events that are predicted, and with a limit of seconds
EASE_ITEMS, MORE_EASE_ITEMS = 4_000, 15_000  # of the largest catalogue that EASE is fitted to, in a hurry and not
REMEMBERED = 500  # training events that are predicted
OFTEN = 0.05  # of training events are of an item that the user had chosen: then items of the history stay in the lists


def of_catalogues(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for spaces whose tokens are items of a catalogue, else the reason why not."""
    return None if space.catalogue else f"measures recommendations from a catalogue, not {kind.plural}"


@dataclass(frozen=True)
class Questions:
    """What is asked of a model.

    `train`: histories of item numbers; `asked`: histories before each held-out event, and `targets` (N,) the events,
    V = `items` for what is not in the catalogue. `users` (N,): whose each is. `seen`: whether items of the history may
    be recommended.
    """

    items: int
    train: list[Items]
    asked: list[Items]
    targets: Items
    users: Items
    seen: bool


def questions_of(study: Study, ids: Sequence[str]) -> Questions:
    """Every held-out event of the users that are judged in turn, or evenly spaced ones of more than 10,000 (1,000 with
    a limit of seconds). `ids`: of the items of the catalogue, by number."""
    number = {name: i for i, name in enumerate(ids)}
    train = [np.array([number[n] for n in i.value.items if n in number], np.int64) for i in study.train_items]
    fitted = set(users_for_weights(len(study.heldout_items)))
    judged = [(u, i.value) for u, i in enumerate(study.heldout_items) if u not in fitted]
    places = [(u, p) for u, history in judged for p in range(history.context, len(history.items))]
    if not number or not places:
        raise Unmeasurable("no held-out event follows a history")
    most = FEW_QUESTIONS if study.limited else QUESTIONS
    kept = [places[i * len(places) // most] for i in range(most)] if len(places) > most else places
    if len(kept) < len(places):
        study.note(f"recommendations: {len(kept):,} of {len(places):,} held-out events are predicted, evenly spaced")
    items = len(number)
    targets, asked = np.full(len(kept), items), []
    for row, (user, place) in enumerate(kept):
        history = study.heldout_items[user].value.items
        targets[row] = number.get(history[place], items)
        asked.append(np.array([number[i] for i in history[:place] if i in number], np.int64))
    if lost := int((targets == items).sum()):
        study.note(f"recommendations: {lost:,} held-out events are of items outside the catalogue: counted as missed")
    again = sum(len(h) - len(np.unique(h)) for h in train) / max(1, sum(map(len, train)))
    seen = again >= OFTEN
    rule = "may be recommended" if seen else "are left out"
    study.note(f"recommendations: the whole catalogue of {items:,} items is ranked; items of the history {rule}")
    if fitted:
        study.note("recommendations: weights are fitted to every second held-out user, and the others are judged")
    return Questions(items, train, asked, targets, np.array([u for u, _ in kept]), seen)


def answered(questions: Questions, scorer: Scorer, probability: bool = False) -> Ranked:
    """What a scorer answers; a target that is not in the catalogue is ranked last."""
    known = questions.targets < questions.items
    aims = np.where(known, questions.targets, -1)
    found = rank_all(scorer, questions.asked, aims, questions.items, k=K, seen=questions.seen, probability=probability)
    return Ranked(np.where(known, found.ranks, questions.items + 1), found.lists, found.probability)


def recommendations(evidence: Evidence) -> list[Score]:
    """HR@10, NDCG@10 and MRR over the whole catalogue, ties counted against the model, with intervals over users.

    Beside them, of the lists of ten: coverage, Gini index of exposure, novelty in bits, diversity (one minus the cosine
    of co-occurrence), popularity lift, and the calibration error of the probability that an item is the next one. Each
    held-out event is predicted from all that its user chose before it.

    Beside them stand popularity, nearest neighbours, EASE for catalogues of up to 15,000 items, and iALS if the package
    implicit is there, with settings that are not tuned; with a limit of seconds popularity and EASE, or nearest
    neighbours for more than 4,000 items. Control: the best of these. The floor of the calibration error is what true
    probabilities get.

    Of a tuned run follows what it still knows of the data of its base (`base_retention.retained`).
    """
    study = study_of(evidence)
    recommender = study.tool(recommender_of)
    if recommender is None:
        raise Unmeasurable("this family gives no probabilities of next items")
    kept, notes = study.tool(retained)
    try:
        scores = of_heldout(study, recommender)
    except Unmeasurable as error:
        if not kept:
            raise
        scores = []
        study.note(f"recommendations: {error}")
    for text in notes:
        events.note(f"note: {text}", "retained")
        study.note(text)
    return [*scores, *kept]


def of_training(questions: Questions, score: Scorer) -> list[Score]:
    """NDCG@10 of the last event of some training histories, evenly spaced, which a model that has learnt them by heart
    foresees far better than held-out events; nothing where no history has an event after another."""
    longer = [h for h in questions.train if len(h) > 1 and (questions.seen or h[-1] not in h[:-1])]
    kept = longer[:: -(-len(longer) // REMEMBERED)] if longer else []
    if not kept:
        return []
    last, users = np.array([h[-1] for h in kept], np.int64), np.arange(len(kept))
    asked = Questions(questions.items, questions.train, [h[:-1] for h in kept], last, users, questions.seen)
    found = accuracy(answered(asked, score).ranks, K, users)[f"NDCG@{K}"]
    return [found.score(f"training_NDCG@{K}", "none")]


def of_heldout(study: Study, recommender: Recommender) -> list[Score]:
    """The scores of held-out events. Raises Unmeasurable if there is none, or nothing left to recommend."""
    questions = questions_of(study, recommender.catalogue.ids)
    if not questions.seen and all(len(np.unique(h)) == questions.items for h in questions.asked):
        raise Unmeasurable("the users that are judged chose every item before, and nothing is left to recommend")

    score = scorer_of(recommender, questions.items)
    own = answered(questions, score, probability=True)
    others = {
        name: answered(questions, fit(questions.train, questions.items))
        for name, fit in rivals(questions.items, study.limited).items()
    }
    right = accuracy(own.ranks, K, questions.users)
    controls = {name: accuracy(ranked.ranks, K, questions.users) for name, ranked in others.items()}
    best = max(controls, key=lambda name: controls[name][f"NDCG@{K}"].value)
    out = []
    for metric, estimate in right.items():
        out.append(estimate.score(metric, "higher", control=controls[best][metric].value))
        out += [controls[name][metric].score(f"{metric}/{name}", "higher") for name in others]
    left = questions.items - (0 if questions.seen else float(np.mean([len(np.unique(h)) for h in questions.asked])))
    by_chance = float((1 / np.log2(2.0 + np.arange(K))).sum()) / max(K, left)
    out.append(Score(f"random_NDCG@{K}", by_chance, None, None, len(questions.targets), "higher"))
    leads = ndcg(own.ranks, K) - ndcg(others[best].ranks, K)  # of the same events
    out.append(over_users(leads, questions.users).score(f"lead_NDCG@{K}", "higher"))
    usual = of_lists(questions, others[best])
    if f"popularity_lift@{K}" not in usual:
        study.note("recommendations: without popularity lift, as no user who is judged chose anything before")
    out += [e.score(n, "none", control=usual[n].value) for n, e in of_lists(questions, own).items()]
    assert own.probability is not None
    out += of_training(questions, score)
    error, floor = calibration(own.probability, (own.lists == questions.targets[:, None]).astype(np.float64))
    return [*out, error.score("calibration_error", "lower", floor=floor)]


def rivals(items: int, brief: bool) -> dict[str, Callable[[Sequence[Items], int], Scorer]]:
    """Models that are no networks, by name, for a catalogue of so many items."""
    found: dict[str, Callable[[Sequence[Items], int], Scorer]] = {"popularity": popularity}
    if items > EASE_ITEMS or not brief:
        found["item_knn"] = item_knn
    if items <= (EASE_ITEMS if brief else MORE_EASE_ITEMS):
        found["ease"] = ease
    if not brief and find_spec("implicit") is not None:
        found["ials"] = ials
    return found


def of_lists(questions: Questions, ranked: Ranked) -> dict[str, Estimate]:
    """What the lists are like, by name; what cannot be said of them is left out."""
    counts = users_of(questions.train, questions.items)
    taken = incidence(questions.train, questions.items).T.tocsr()
    found = {
        f"coverage@{K}": coverage(ranked.lists, questions.items),
        f"gini@{K}": gini(ranked.lists, questions.items),
        f"novelty@{K}": novelty(ranked.lists, counts, len(questions.train)),
        f"diversity@{K}": intra_list_diversity(ranked.lists, taken),
        f"popularity_lift@{K}": popularity_lift(ranked.lists, questions.asked, counts),
    }
    return {name: estimate for name, estimate in found.items() if estimate is not None}


LIKE_ALL = 0.3  # collapsed: the recommended share of the catalogue is below this share of that of a simpler model
LUCK = 1.1  # noise: NDCG is below that of random recommendations, times this
BY_HEART = 4  # memorised: training events are foreseen so many times as well as held-out ones
NEARLY = 0.95  # good: of the simpler model's NDCG, at least this share


def judge_recommendations(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on recommendations, beside popular items and a model without a network; None without these."""
    own, popular = scores.get(f"NDCG@{K}"), scores.get(f"NDCG@{K}/popularity")
    others = [name for name in scores if name.startswith(f"NDCG@{K}/") and name != f"NDCG@{K}/popularity"]
    if own is None or popular is None or not others:
        return None
    other = max(others, key=lambda name: scores[name].value)
    name, beside = other.partition("/")[2], scores[other]
    numbers = f"(NDCG@{K} {own.value:.3f}; {name} {beside.value:.3f}, popularity {popular.value:.3f})"
    lead = scores.get(f"lead_NDCG@{K}")  # of the same events, so that the luck of the users does not count
    behind = beside.value - own.value if lead is None else -lead.value
    if behind <= (1 - NEARLY) * beside.value:
        return "good", f"The recommendations are as good as those of a simpler model, or better {numbers}."
    learnt, covered = scores.get(f"training_NDCG@{K}"), scores.get(f"coverage@{K}")
    if covered is not None and covered.control and covered.value < LIKE_ALL * covered.control:
        share = f"{covered.value:.1%} of the catalogue" + f", a simpler model {covered.control:.1%}"
        return "collapsed", f"The same few items are recommended to all: {share} {numbers}."
    if learnt is not None and learnt.value > max(BY_HEART * own.value, beside.value):
        return "memorised", (
            f"Choices of training {plural} are foreseen far better than those it has not seen: NDCG@{K} of "
            f"{learnt.value:.3f} and of {own.value:.3f}."
        )
    if own.value <= popular.value:
        return "noise", f"What is popular with all is recommended better {numbers}."
    by_chance = scores.get(f"random_NDCG@{K}")
    if by_chance is not None and own.value < LUCK * by_chance.value:
        return (
            "noise",
            f"The recommendations are hardly better than random ones, which have {by_chance.value:.3f} {numbers}.",
        )
    return "recognisable", f"The recommendations fit the user, but a simpler model has better ones {numbers}."


WORDS = {
    "HR@10": ScoreWords(
        "next choices among the first ten (HR@10)",
        "The share of held-out choices among the ten best of the whole catalogue, by all that the user chose before.",
        Question.PREDICTS,
    ),
    "NDCG@10": ScoreWords(
        "next choices near the top (NDCG@10)",
        "As HR@10, with a choice counting less the lower it stands: 1 in the first place, 0.29 in the tenth.",
        Question.PREDICTS,
    ),
    "lead_NDCG@10": ScoreWords(
        "next choices near the top, beyond the best simpler model",
        "The difference in NDCG@10 on the same choices; above 0 the model is better.",
        Question.PREDICTS,
    ),
    "random_NDCG@10": ScoreWords(
        "next choices near the top, of random recommendations", "NDCG@10 by luck alone.", Question.PREDICTS
    ),
    "training_NDCG@10": ScoreWords(
        "training choices near the top",
        "NDCG@10 of choices that the model has learnt; far above that of others, they are learnt by heart.",
        Question.COPIED,
    ),
    "MRR": ScoreWords(
        "mean of one over the rank (MRR)", "1 if the next choice always stands first.", Question.PREDICTS
    ),
    "calibration_error": ScoreWords(
        "error of the stated probabilities",
        "How far the probability of a recommended item is from how often it is the next choice.",
        Question.PREDICTS,
    ),
    "coverage@10": ScoreWords(
        "recommended items of the catalogue",
        "The share of the catalogue that is recommended to anyone.",
        Question.VARIED,
    ),
    "gini@10": ScoreWords(
        "concentration of recommendations (Gini)",
        "0 if every item is recommended equally often, 1 if one item alone is.",
        Question.VARIED,
    ),
    "novelty@10": ScoreWords(
        "novelty of recommendations, in bits",
        "The rarity of recommended items: an item that half of the users chose has 1 bit, one of a thousand 10.",
        Question.VARIED,
    ),
    "diversity@10": ScoreWords(
        "difference within a list",
        "1 minus the similarity of two items of a list, by who chose both.",
        Question.VARIED,
    ),
    "popularity_lift@10": ScoreWords(
        "popularity beyond the users' own",
        "How much more popular recommendations are than what the same users chose: 0 for equally, 1 for twice.",
        Question.VARIED,
    ),
}
BESIDE = {
    "ease": "of EASE",
    "item_knn": "of nearest neighbours",
    "ials": "of iALS",
    "popularity": "of popularity",
}
METRICS: tuple[Metric, ...] = (
    Metric(
        "recommendations",
        of_catalogues,
        recommendations,
        brief=True,
        words={**WORDS, **RETAINED_WORDS},
        beside=BESIDE,
        judge=judge_recommendations,
    ),
)
