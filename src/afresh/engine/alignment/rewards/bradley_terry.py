"""A linear reward from votes: a Bradley-Terry model with ties on features of items, and its results on unseen items.

The reward of an item with features x (D,) is weights @ x, in logits: a beats b with odds exp(reward(a) - reward(b))
(Bradley and Terry 1952), and a tie has the probability of Davidson 1970. The weights maximise the posterior density
under a normal prior, whose width is chosen on held-out votes. Every vote counts separately, even if several raters
compared the same pair. Results do not depend on which item of a pair is called a.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from afresh.core import Score, UserError
from afresh.engine.alignment.feedback.agreement import VoteTable, raw_agreement, table_of
from afresh.engine.alignment.feedback.preferences import FIRST, SECOND, TIE, Vote
from afresh.engine.alignment.feedback.ranking import Bin, _share, calibration

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

SPREADS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # candidate widths of the prior, in logits
MIN_VOTES = 20  # decided votes that training needs; half as many must be tested when they are held out
FOLDS = 5  # of groups of votes that share no items
QUARTERS, REPEATS = 4, 5  # of items, if most votes are connected
NU_SPREAD = 3.0  # the prior's deviation of log nu, which keeps it finite without ties


@dataclass(frozen=True)
class Comparisons:
    """n votes on K items: rows of both items (n,), FIRST, SECOND or TIE (n,), and the number of the prompt or -1
    (n,)."""

    a: Index
    b: Index
    judged: Index
    prompt: Index

    def only(self, keep: Mask) -> Comparisons:
        return Comparisons(self.a[keep], self.b[keep], self.judged[keep], self.prompt[keep])

    @property
    def decided(self) -> Mask:
        return np.asarray(self.judged != TIE)


@dataclass(frozen=True)
class RewardHead:
    """Weights of the features (D,) in logits, the parameter of ties (None without ties), and the width of the prior."""

    weights: Array
    log_nu: float | None
    spread: float


@dataclass(frozen=True)
class HeldOut:
    """Results of rewards on votes on items that they were not trained on.

    `accuracy` is over decided votes. `agreement` is how often two decided judgements of a pair agree, and `ceiling` the
    accuracy that no reward can exceed given that agreement; both are None if no pair was judged twice. `log_loss` is in
    nats; its control is a model that only knows the frequency of ties. `apart` names what training and tested votes do
    not share.
    """

    accuracy: Score
    log_loss: Score
    calibration_error: Score
    table: tuple[Bin, ...]
    agreement: Score | None
    ceiling: Score | None
    spread: float
    apart: str


def comparisons_of(votes: Iterable[Vote]) -> tuple[Comparisons, tuple[str, ...]]:
    """Votes by rows of items, and the sorted items. The same text for two prompts is one item, as its features are
    equal."""
    votes = list(votes)
    names = sorted({item for v in votes for item in (v.a, v.b)})
    prompts = sorted({v.prompt for v in votes if v.prompt is not None})
    row_of, number = ({x: i for i, x in enumerate(values)} for values in (names, prompts))
    codes = {"a": FIRST, "b": SECOND, "tie": TIE}
    rows = [
        (row_of[v.a], row_of[v.b], codes[v.winner], -1 if v.prompt is None else number[v.prompt])
        for v in votes
        if v.a != v.b
    ]
    a, b, judged, prompt = np.array(rows, dtype=np.int64).reshape(len(rows), 4).T
    return Comparisons(a, b, judged, prompt), tuple(names)


def check(features: Array, c: Comparisons) -> None:
    """Raises UserError if no reward can be learnt from features (K, D) and votes."""
    if features.ndim != 2 or not np.isfinite(features).all():
        bad = [] if features.ndim != 2 else np.flatnonzero(~np.isfinite(features).all(1))[:5].tolist()
        raise UserError(
            f"Features must be finite and of shape (items, features). Given: {features.shape}; rows that are not "
            f"finite: {bad}. Correct the function that computes them, or remove those items."
        )
    check_votes(c)
    if not (features[c.a] != features[c.b]).any():
        raise UserError("All compared items have the same features, which cannot predict votes. Use other features.")


def check_votes(c: Comparisons) -> None:
    """Raises UserError if no reward can be learnt from votes, whatever the features of the items are."""
    n = int(c.decided.sum())
    if n < MIN_VOTES:
        raise UserError(
            f"A reward needs at least {MIN_VOTES} decided votes, but there are {n} without ties. Collect more; a few "
            "hundred make a useful reward."
        )
    won = np.where(c.judged == FIRST, c.a, c.b)[c.decided]
    lost = np.where(c.judged == FIRST, c.b, c.a)[c.decided]
    if len(np.unique(won)) == 1 or len(np.unique(lost)) == 1:
        which = "won" if len(np.unique(won)) == 1 else "lost"
        raise UserError(
            f"The same item {which} in all {n} votes, so nothing can be learnt about the others. Collect votes between "
            "other items as well."
        )


# ------------------------------------------------------------------------------------------------------- one model


def scales(a: Array, b: Array) -> Array:
    """The deviation (D,) of each feature over a and b (n, D); infinite for a constant feature, so that it has no
    effect."""
    both = np.concatenate([a, b])
    deviation = both.std(0)
    constant = deviation <= 1e-9 * np.abs(both).max(0, initial=0)
    return np.asarray(np.where(constant, np.inf, deviation), dtype=np.float64)


def shared(blocks: Sequence[Array]) -> Array:
    """The `share` (D,) of `fit` that gives blocks of features equal parts in the prior, independent of their widths.

    The values of each block (d,) are the relative deviations of the prior of its features.
    """
    blocks = [b for b in blocks if len(b)]
    return np.concatenate([b / max(float(np.linalg.norm(b)), 1e-300) / len(blocks) ** 0.5 for b in blocks])


def log_chances(margin: Array, log_nu: float | None) -> Array:
    """ln of the probabilities (n, 3) that a wins, that b wins, and of a tie, given reward(a) - reward(b) (n,).

    Davidson 1970, or without ties (None) Bradley and Terry 1952.
    """
    tie = np.full(len(margin), -np.inf if log_nu is None else log_nu)
    from scipy.special import log_softmax

    return np.asarray(log_softmax(np.stack([margin / 2, -margin / 2, tie], 1), axis=1))


def fit(
    a: Array,
    b: Array,
    judged: Index,
    spread: float,
    share: Array | None = None,
    start: RewardHead | None = None,
    ties: bool = True,
) -> RewardHead:
    """The most probable weights given features a, b (n, D) of both items and judgements (n,).

    Features are divided by their deviation. The prior of their weights is normal with deviation `spread` x `share`
    (D,), whose squares sum to 1 (None: all equal), so that `spread` is about the deviation of the items' rewards before
    any vote. The convex problem is solved by L-BFGS (Liu and Nocedal 1989) from `start`. Without `ties`, their
    probability is 0.
    """
    scale = scales(a, b)
    share = np.full(a.shape[1], a.shape[1] ** -0.5) if share is None else share
    unit = spread * share / scale  # a step of 1 is one deviation of the prior
    z = (a - b) * unit
    outcome = np.eye(3)[judged]

    def loss(v: Array) -> tuple[float, Array]:
        logs = log_chances(z @ v[:-1], float(v[-1]) if ties else None)
        excess = np.exp(logs) - outcome
        prior = v[:-1] @ v[:-1] / 2 + (v[-1] / NU_SPREAD) ** 2 / 2
        slope = np.append(v[:-1], v[-1] / NU_SPREAD**2)
        slope[:-1] += z.T @ ((excess[:, 0] - excess[:, 1]) / 2)
        slope[-1] += excess[:, 2].sum() if ties else 0.0
        return float(prior - logs[outcome > 0].sum()), slope

    initial = np.zeros(a.shape[1] + 1)
    if start is not None:
        initial[:-1] = np.divide(start.weights, unit, out=np.zeros(len(unit)), where=unit > 0)
        initial[-1] = start.log_nu or 0.0
    settings = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-5, "maxcor": 20}
    from scipy.optimize import minimize

    solution = minimize(loss, initial, jac=True, method="L-BFGS-B", options=settings)
    return RewardHead(solution.x[:-1] * unit, float(solution.x[-1]) if ties else None, spread)


# --------------------------------------------------------------------------------------------- what to hold out


def groups_of(c: Comparisons, prompts: bool) -> Index:
    """The group (n,) of each vote. Votes that share an item, or with `prompts` a prompt, directly or through others,
    are in the same group."""
    items = int(max(c.a.max(), c.b.max())) + 1
    one, other = c.a, c.b
    nodes = items
    if prompts and (has := c.prompt >= 0).any():
        one, other = np.concatenate([one, c.a[has]]), np.concatenate([other, items + c.prompt[has]])
        nodes = items + int(c.prompt.max()) + 1
    from scipy.sparse import coo_matrix  # here: a server that learns nothing starts a quarter of a second earlier
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(one)), (one, other)), shape=(nodes, nodes))
    label = connected_components(graph, directed=False)[1]
    return np.unique(label[c.a], return_inverse=True)[1].astype(np.int64)


def dealt(group: Index, folds: int, seed: int) -> Index:
    """The fold (n,) of each vote. Groups are assigned from the largest on, each to the smallest fold so far; groups of
    equal size in random order."""
    sizes = np.bincount(group)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    fold_of, load = np.zeros(len(sizes), dtype=np.int64), np.zeros(folds)
    for g in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[g] = load.argmin()
        load[fold_of[g]] += sizes[g]
    return np.asarray(fold_of[group])


def splits(c: Comparisons, seed: int = 0) -> tuple[list[tuple[Mask, Mask]], Index, str]:
    """Pairs of masks (n,) of training and tested votes that share no item; the groups (n,) within which votes are not
    independent; and the name of what the masks do not share.

    Votes are grouped so that groups share neither items nor prompts, or else no items, and groups are assigned to
    folds. If one group has most votes, as when a few items are all compared with each other, items are divided into
    quarters instead, several times: votes within one quarter are tested, those within the others are for training, and
    those between quarters are left out. Each model is then trained on fewer votes than the final one.
    """
    for prompts, apart in ((True, "items and prompts"), (False, "items")):
        group = groups_of(c, prompts)
        if len(np.unique(group)) >= FOLDS and np.bincount(group).max() <= len(group) / 2:
            fold = dealt(group, FOLDS, seed)
            masks = [(fold != f, fold == f) for f in range(FOLDS)]
            return masks, group, apart if (c.prompt >= 0).any() else "items"
    masks, random = [], np.random.default_rng(seed)
    items = int(max(c.a.max(), c.b.max())) + 1
    for _ in range(REPEATS):
        quarter = random.permutation(items) % QUARTERS
        for q in range(QUARTERS):
            in_a, in_b = quarter[c.a] == q, quarter[c.b] == q
            masks.append((~in_a & ~in_b, in_a & in_b))
    pairs = np.stack([np.minimum(c.a, c.b), np.maximum(c.a, c.b)], 1)
    group = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return masks, group, "items (divided into quarters)"


def usable(c: Comparisons, masks: Sequence[tuple[Mask, Mask]]) -> list[tuple[Mask, Mask]]:
    """The splits with enough votes for training. Raises UserError if too few votes can be tested."""
    out = [(rest, here) for rest, here in masks if c.decided[rest].sum() >= MIN_VOTES // 4 and here.any()]
    tested = np.any([here for _, here in out], axis=0) if out else np.zeros(len(c.a), dtype=bool)
    if (n := int((tested & c.decided).sum())) < MIN_VOTES // 2:
        raise UserError(
            f"Only {n} votes can be held out while enough others remain for training, but {MIN_VOTES // 2} are needed. "
            "Most votes are on the same few items: collect votes between other items."
        )
    return out


def usable_votes(c: Comparisons, seed: int = 0) -> None:
    """Raises UserError if too few votes can be held out to test a reward."""
    usable(c, splits(c, seed)[0])


# ------------------------------------------------------------------------------------------------- how good it is


def effective(hits: Array, group: Index) -> float:
    """The effective number of independent votes among n dependent ones (n,), 1 to n (Rao and Scott 1992).

    It is n over the design effect: the variance of the mean when whole groups are drawn, over that when single votes
    are drawn.
    """
    n, p = len(hits), float(hits.mean())
    which = np.unique(group, return_inverse=True)[1]
    apart = np.bincount(which, hits - p)
    if len(apart) < 2 or not 0 < p < 1:
        return float(len(apart))
    variance = len(apart) / (len(apart) - 1) * float(apart @ apart) / n**2
    return max(1.0, n / max(1.0, variance / (p * (1 - p) / n)))


def _mean(values: Array, group: Index) -> tuple[float, float | None, float | None]:
    """A mean with its normal interval for a sample of whole groups (Cochran 1977, eq. 6.13)."""
    which, m = np.unique(group, return_inverse=True)[1], float(values.mean())
    apart = np.bincount(which, values - m)
    if (g := len(apart)) < 2:
        return m, None, None
    half = 1.96 * float(np.sqrt(g / (g - 1) * (apart @ apart))) / len(values)
    return m, m - half, m + half


def rater_agreement(
    votes: Iterable[Vote], judged_again: Sequence[tuple[Vote, Vote]] = ()
) -> tuple[Score | None, Score | None]:
    """How often two decided judgements of one pair agree, and the accuracy that no reward can exceed; None if no pair
    was judged twice. `judged_again`: both votes on pairs that one rater was asked about twice.

    Let the first of a pair be preferred with probability p. Two judgements agree with probability E[p^2 + (1 - p)^2] =
    1/2 + 2 E d^2, where d = p - 1/2, and the best prediction for every pair is right with probability 1/2 + E|d| <= 1/2
    + sqrt(E d^2). The ceiling is therefore 1/2 + sqrt(2 agreement - 1) / 2, with equality if |d| is the same for all
    pairs. The interval of the agreement is Wilson's for as many pairs: a few that all agree prove little.
    """
    table = table_of([v for v in votes if v.winner != "tie"])
    decided = [(one.judgement, other.judgement) for one, other in judged_again if one.decided and other.decided]
    again = np.array(decided, dtype=np.int64).reshape(-1, 2)
    width = max(2, table.values.shape[1])
    rows = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in (table.values, again)]
    try:
        bare = raw_agreement(VoteTable(np.concatenate(rows), sides=True))
    except UserError:
        return None, None
    low, high = _share(bare.value * bare.n, bare.n)
    agreement = replace(bare, low=low, high=high)

    def bound(a: float) -> float:
        return 0.5 + max(0.0, 2 * a - 1) ** 0.5 / 2

    return agreement, Score("ceiling", bound(agreement.value), bound(low), bound(high), agreement.n, "higher")


def predictions(
    features: Array, c: Comparisons, folds: Sequence[tuple[Mask, Mask]], share: Array | None, ties: bool
) -> Array:
    """ln of the probabilities of each vote's outcomes under every prior, (folds, SPREADS, n, 3); NaN if not tested."""
    out = np.full((len(folds), len(SPREADS), len(c.a), 3), np.nan)
    for f, (rest, here) in enumerate(folds):
        a, b = features[c.a[rest]], features[c.b[rest]]
        head = None
        for s, spread in enumerate(SPREADS):
            head = fit(a, b, c.judged[rest], spread, share, head, ties)
            margin = (features[c.a[here]] - features[c.b[here]]) @ head.weights
            out[f, s, here] = log_chances(margin, head.log_nu)
    return out


def evaluated(logs: Array, c: Comparisons, group: Index, apart: str, ties: bool) -> HeldOut:
    """The results of predictions (folds, SPREADS, n, 3).

    The prior of a fold is the one with the least loss on the votes of the other folds, so that no vote selects the
    model that it tests; `spread` is the one with the least loss on all votes.
    """
    n = logs.shape[2]
    loss = -np.take_along_axis(logs, c.judged[None, None, :, None], 3)[..., 0]  # (folds, SPREADS, n)
    chances = np.zeros((n, 3))
    times = np.zeros(n)
    for f in range(len(logs)):
        here = ~np.isnan(loss[f, 0])
        others = loss[np.arange(len(logs)) != f][..., ~here]
        known = np.nanmean(others, axis=(0, 2)) if (~np.isnan(others)).any() else np.nanmean(loss[f], axis=1)
        chances[here] += np.exp(logs[f, int(known.argmin())][here])
        times += here
    tested = times > 0
    chances, judged, group = chances[tested] / times[tested, None], c.judged[tested], group[tested]
    odds = chances[:, FIRST] / (chances[:, FIRST] + chances[:, SECOND])
    calibrated = calibration(odds, np.choose(judged, [1.0, 0.0, 0.5]))
    decided = judged != TIE
    right = np.where(judged == FIRST, odds > 0.5, odds < 0.5) + 0.5 * (odds == 0.5)
    n_effective = max(1, int(effective(right[decided].astype(np.float64), group[decided])))
    low, high = _share(calibrated.accuracy.value * n_effective, n_effective)
    value, loss_low, loss_high = _mean(-np.log(np.maximum(chances[np.arange(len(judged)), judged], 1e-300)), group)
    rate = float(np.mean(judged == TIE)) if ties else 0.0
    blind = -float(np.mean(np.where(judged == TIE, np.log(rate or 1.0), np.log((1 - rate) / 2))))
    return HeldOut(
        replace(calibrated.accuracy, low=low, high=high),
        Score("log_loss", value, loss_low, loss_high, len(judged), "lower", control=blind),
        calibrated.error,
        calibrated.table,
        None,
        None,
        SPREADS[int(np.nanmean(loss, axis=(0, 2)).argmin())],
        apart,
    )


def learn(
    features: Array,
    votes: Sequence[Vote],
    seed: int = 0,
    share: Array | None = None,
    judged_again: Sequence[tuple[Vote, Vote]] = (),
) -> tuple[RewardHead, HeldOut]:
    """The reward fitted to all votes, and the held-out results of rewards fitted in the same way to parts of them.

    `features` (K, D) are in the order of the items of `comparisons_of`; `share` is that of `fit`, and `judged_again`
    that of `rater_agreement`. Raises UserError like `check` and `usable`.
    """
    c, _ = comparisons_of(votes)
    check(features, c)
    ties = bool((~c.decided).any())
    masks, group, apart = splits(c, seed)
    out = evaluated(predictions(features, c, usable(c, masks), share, ties), c, group, apart, ties)
    agreement, ceiling = rater_agreement(votes, judged_again)
    head = fit(features[c.a], features[c.b], c.judged, out.spread, share, None, ties)
    return head, replace(out, agreement=agreement, ceiling=ceiling)


def rewards(head: RewardHead, features: Array) -> Array:
    """Rewards (n,) of features (n, D), in logits."""
    return features @ head.weights
