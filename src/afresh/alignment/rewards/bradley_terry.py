"""A linear reward from votes: a Bradley-Terry model with ties on features of items, and how good it is on unseen ones.

The reward of an item with features x (D,) is weights @ x, in logits: a beats b with odds exp(reward(a) - reward(b))
(Bradley and Terry 1952), a tie has the chance that Davidson 1970 gives it. The weights are those of largest posterior
density under a normal prior; how wide it is, is chosen on votes held out. Every vote counts by itself, also where
several raters judged one pair; nothing depends on which item of a pair is called a.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import log_softmax

from afresh.alignment.feedback.agreement import raw_agreement, table_of
from afresh.alignment.feedback.preferences import FIRST, SECOND, TIE, Vote
from afresh.alignment.feedback.ranking import Bin, _share, calibration
from afresh.core import Score, UserError

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

SPREADS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # widths of the prior that are tried, in logits
LEAST = 20  # decided votes; of those held out, half as many must be tested
FOLDS, QUARTERS, REPEATS = 5, 4, 5  # of groups that share nothing; of items, where all hang together
NU_SPREAD = 3.0  # the prior's deviation of log nu, so that it stays finite where no tie was seen


@dataclass(frozen=True)
class Comparisons:
    """n votes on K items: rows of the two (n,), FIRST, SECOND or TIE (n,), and the number of the prompt (n,), or -1."""

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
class Head:
    """Logits a unit of each feature (D,); how common ties are (None: there were none); the prior's width in logits."""

    weights: Array
    log_nu: float | None
    spread: float


@dataclass(frozen=True)
class HeldOut:
    """How good rewards are for items that were not learnt from.

    `accuracy` is over decided votes. Beside it: `agreement`, how often two raters who decided agree on a pair, and
    `ceiling`, what no reward can exceed where raters agree so much; None where no pair has two raters. `log_loss` is in
    nats, its control a model that knows only how common ties are. `apart`: what no learnt and tested votes share.
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
    """Votes by rows of items, and the items, sorted. The same text for two prompts is one item: its features are."""
    votes = list(votes)
    names = sorted({item for v in votes for item in (v.a, v.b)})
    prompts = sorted({v.prompt for v in votes if v.prompt is not None})
    place, number = ({x: i for i, x in enumerate(some)} for some in (names, prompts))
    said = {"a": FIRST, "b": SECOND, "tie": TIE}
    rows = [
        (place[v.a], place[v.b], said[v.winner], -1 if v.prompt is None else number[v.prompt])
        for v in votes
        if v.a != v.b
    ]
    a, b, judged, prompt = np.array(rows, dtype=np.int64).reshape(len(rows), 4).T
    return Comparisons(a, b, judged, prompt), tuple(names)


def check(features: Array, c: Comparisons) -> None:
    """Raises UserError when nothing can be learnt of features (K, D) and votes."""
    if features.ndim != 2 or not np.isfinite(features).all():
        bad = [] if features.ndim != 2 else np.flatnonzero(~np.isfinite(features).all(1))[:5].tolist()
        raise UserError(
            f"Features of items are finite numbers (items, features); given {features.shape}, and rows {bad} are not "
            "finite. Mend what makes them, or leave those items out."
        )
    n = int(c.decided.sum())
    if n < LEAST:
        raise UserError(
            f"A reward is learnt from at least {LEAST} decided votes, and there are {n} (ties decide nothing). Collect "
            "more; a few hundred make a useful one."
        )
    won = np.where(c.judged == FIRST, c.a, c.b)[c.decided]
    lost = np.where(c.judged == FIRST, c.b, c.a)[c.decided]
    if len(np.unique(won)) == 1 or len(np.unique(lost)) == 1:
        which = "won" if len(np.unique(won)) == 1 else "lost"
        raise UserError(
            f"All {n} votes went one way: the same item {which} every time, which says nothing of the others. Collect "
            "votes between other items too."
        )
    if not (features[c.a] != features[c.b]).any():
        raise UserError("The items that were compared have the same features, so votes cannot be told by them.")


# ------------------------------------------------------------------------------------------------------- one model


def scales(a: Array, b: Array) -> Array:
    """The deviation of each feature over a and b (n, D), (D,): infinite where it is constant, so that it counts 0."""
    both = np.concatenate([a, b])
    deviation = both.std(0)
    still = deviation <= 1e-9 * np.abs(both).max(0, initial=0)
    return np.asarray(np.where(still, np.inf, deviation), dtype=np.float64)


def shared(blocks: Sequence[Array]) -> Array:
    """The `share` of `fit` (D,) for blocks of features that have equal parts in the prior, whatever their widths; each
    block (d,) says how much of its part each feature has, in deviations of the prior."""
    blocks = [b for b in blocks if len(b)]
    return np.concatenate([b / max(float(np.linalg.norm(b)), 1e-300) / len(blocks) ** 0.5 for b in blocks])


def log_chances(margin: Array, log_nu: float | None) -> Array:
    """ln of the chances (n, 3) that a wins, b wins, and of a tie, from reward(a) - reward(b) (n,): Davidson
    1970. Without ties (None), Bradley and Terry 1952."""
    none = np.full(len(margin), -np.inf) if log_nu is None else np.full(len(margin), log_nu)
    return np.asarray(log_softmax(np.stack([margin / 2, -margin / 2, none], 1), axis=1))


def fit(
    a: Array,
    b: Array,
    judged: Index,
    spread: float,
    share: Array | None = None,
    start: Head | None = None,
    ties: bool = True,
) -> Head:
    """The likeliest weights given features a, b (n, D) of both items and judgements (n,).

    Features are divided by their deviation; the prior of their weights is normal with deviation `spread` x `share`
    (D,), whose squares sum to 1 (None: all alike), so that `spread` is about the deviation of items' rewards before
    any vote. L-BFGS (Liu and Nocedal 1989) on a convex problem, from `start`. Without `ties` none are expected.
    """
    scale = scales(a, b)
    share = np.full(a.shape[1], a.shape[1] ** -0.5) if share is None else share
    unit = spread * share / scale  # a step of 1 is one deviation of the prior
    z = (a - b) * unit
    outcome = np.eye(3)[judged]

    def loss(v: Array) -> tuple[float, Array]:
        log_nu = float(v[-1]) if ties else None
        logs = log_chances(z @ v[:-1], log_nu)
        excess = np.exp(logs) - outcome
        prior = v[:-1] @ v[:-1] / 2 + (v[-1] / NU_SPREAD) ** 2 / 2
        slope = np.append(v[:-1], v[-1] / NU_SPREAD**2)
        slope[:-1] += z.T @ ((excess[:, 0] - excess[:, 1]) / 2)
        slope[-1] += excess[:, 2].sum() if ties else 0.0
        return float(prior - logs[outcome > 0].sum()), slope

    first = np.zeros(a.shape[1] + 1)
    if start is not None:
        first[:-1] = np.divide(start.weights, unit, out=np.zeros(len(unit)), where=unit > 0)
        first[-1] = start.log_nu or 0.0
    found = minimize(
        loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-5, "maxcor": 20}
    )
    return Head(found.x[:-1] * unit, float(found.x[-1]) if ties else None, spread)


# --------------------------------------------------------------------------------------------- what to hold out


def groups_of(c: Comparisons, prompts: bool) -> Index:
    """The group (n,) of each vote: votes that share an item, directly or by others, are of one; so are those that share
    a prompt, where `prompts`."""
    items = int(max(c.a.max(), c.b.max())) + 1
    one, other = c.a, c.b
    nodes = items
    if prompts and (has := c.prompt >= 0).any():
        one, other = np.concatenate([one, c.a[has]]), np.concatenate([other, items + c.prompt[has]])
        nodes = items + int(c.prompt.max()) + 1
    graph = coo_matrix((np.ones(len(one)), (one, other)), shape=(nodes, nodes))
    label = connected_components(graph, directed=False)[1]
    return np.unique(label[c.a], return_inverse=True)[1].astype(np.int64)


def dealt(group: Index, folds: int, seed: int) -> Index:
    """The fold (n,) of each vote: groups in random order, the largest first, each to the smallest fold so far."""
    sizes = np.bincount(group)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    place, load = np.zeros(len(sizes), dtype=np.int64), np.zeros(folds)
    for g in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        place[g] = load.argmin()
        load[place[g]] += sizes[g]
    return np.asarray(place[group])


def splits(c: Comparisons, seed: int = 0) -> tuple[list[tuple[Mask, Mask]], Index, str]:
    """Pairs of masks (n,), votes to learn from and to test on, that share no item; the groups (n,) whose votes are not
    independent of each other; and what is kept apart.

    Votes fall into groups that share neither items nor prompts, or no items; these are dealt to folds. Where one group
    has most votes (a few items compared all with all), items are dealt to quarters, several times: votes within one are
    tested, votes within the others learnt from, and those between left out, so that fewer are learnt from than in the
    end.
    """
    for prompts, apart in ((True, "items and prompts"), (False, "items")):
        group = groups_of(c, prompts)
        if len(np.unique(group)) >= FOLDS and np.bincount(group).max() <= len(group) / 2:
            fold = dealt(group, FOLDS, seed)
            found = [(fold != f, fold == f) for f in range(FOLDS)]
            return found, group, apart if (c.prompt >= 0).any() else "items"
    found, random = [], np.random.default_rng(seed)
    items = int(max(c.a.max(), c.b.max())) + 1
    for _ in range(REPEATS):
        quarter = random.permutation(items) % QUARTERS
        for q in range(QUARTERS):
            in_a, in_b = quarter[c.a] == q, quarter[c.b] == q
            found.append((~in_a & ~in_b, in_a & in_b))
    pairs = np.stack([np.minimum(c.a, c.b), np.maximum(c.a, c.b)], 1)
    group = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return found, group, "items, by parts of them"


def usable(c: Comparisons, found: Sequence[tuple[Mask, Mask]]) -> list[tuple[Mask, Mask]]:
    """The splits with enough to learn from. Raises UserError when too few votes can be tested."""
    out = [(rest, here) for rest, here in found if c.decided[rest].sum() >= LEAST // 4 and here.any()]
    tested = np.any([here for _, here in out], axis=0) if out else np.zeros(len(c.a), dtype=bool)
    if (n := int((tested & c.decided).sum())) < LEAST // 2:
        raise UserError(
            f"Only {n} votes are between items that can be held out while others are learnt from; {LEAST // 2} are "
            "needed. The votes turn about a few items: collect some between other items."
        )
    return out


# ------------------------------------------------------------------------------------------------- how good it is


def effective(hits: Array, group: Index) -> float:
    """How many independent votes n dependent ones (n,) are worth (Rao and Scott 1992): n over the design effect, the
    variance of the mean with whole groups drawn, over that with single votes drawn; not above n, at least 1."""
    n, p = len(hits), float(hits.mean())
    which = np.unique(group, return_inverse=True)[1]
    apart = np.bincount(which, hits - p)
    if len(apart) < 2 or not 0 < p < 1:
        return float(len(apart))
    variance = len(apart) / (len(apart) - 1) * float(apart @ apart) / n**2
    return max(1.0, n / max(1.0, variance / (p * (1 - p) / n)))


def _mean(values: Array, group: Index) -> tuple[float, float | None, float | None]:
    """A mean with its normal interval, whole groups drawn (Cochran 1977, eq. 6.13)."""
    which, m = np.unique(group, return_inverse=True)[1], float(values.mean())
    apart = np.bincount(which, values - m)
    if (g := len(apart)) < 2:
        return m, None, None
    half = 1.96 * float(np.sqrt(g / (g - 1) * (apart @ apart))) / len(values)
    return m, m - half, m + half


def between_raters(votes: Iterable[Vote]) -> tuple[Score | None, Score | None]:
    """How often two raters who decided agree on a pair, and the accuracy that no reward can exceed; None without pairs
    of two raters.

    Let raters prefer the first of a pair with chance p. Two agree with chance E[p^2 + (1 - p)^2] = 1/2 + 2 E d^2, where
    d = p - 1/2, and the best answer to every pair is right with chance 1/2 + E|d| <= 1/2 + sqrt(E d^2). So the ceiling
    is 1/2 + sqrt(2 agreement - 1) / 2, which is reached where all pairs are equally clear.
    """
    try:
        found = raw_agreement(table_of([v for v in votes if v.winner != "tie"]))
    except UserError:
        return None, None

    def bound(a: float | None) -> float | None:
        return None if a is None else 0.5 + max(0.0, 2 * a - 1) ** 0.5 / 2

    top = bound(found.value)
    assert top is not None
    return found, Score("ceiling", top, bound(found.low), bound(found.high), found.n, "higher")


def predictions(
    features: Array, c: Comparisons, folds: Sequence[tuple[Mask, Mask]], share: Array | None, ties: bool
) -> Array:
    """ln of the chances of each vote's outcomes under every prior: (folds, SPREADS, n, 3), NaN where not tested."""
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
    """What predictions (folds, SPREADS, n, 3) are worth.

    The prior of a fold is the one that did best on the votes of the others, so that no vote chooses the model that is
    judged by it; `spread` is the one that did best on all.
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
    found = calibration(odds, np.choose(judged, [1.0, 0.0, 0.5]))
    decided = judged != TIE
    right = np.where(judged == FIRST, odds > 0.5, odds < 0.5) + 0.5 * (odds == 0.5)
    worth = max(1, int(effective(right[decided].astype(np.float64), group[decided])))
    low, high = _share(found.accuracy.value * worth, worth)
    value, least, most = _mean(-np.log(np.maximum(chances[np.arange(len(judged)), judged], 1e-300)), group)
    rate = float(np.mean(judged == TIE)) if ties else 0.0
    blind = -float(np.mean(np.where(judged == TIE, np.log(rate or 1.0), np.log((1 - rate) / 2))))
    return HeldOut(
        replace(found.accuracy, low=low, high=high),
        Score("log_loss", value, least, most, len(judged), "lower", control=blind),
        found.error,
        found.table,
        None,
        None,
        SPREADS[int(np.nanmean(loss, axis=(0, 2)).argmin())],
        apart,
    )


def learn(features: Array, votes: Sequence[Vote], seed: int = 0, share: Array | None = None) -> tuple[Head, HeldOut]:
    """The reward of all votes, and how good such rewards are on votes held out.

    `features` (K, D) of the items in the order of `comparisons_of`; `share` as in `fit`. Raises UserError as `check`
    and `usable`. The final reward is learnt from all votes, so from more than those that were judged.
    """
    c, _ = comparisons_of(votes)
    check(features, c)
    ties = bool((~c.decided).any())
    found, group, apart = splits(c, seed)
    folds = usable(c, found)
    out = evaluated(predictions(features, c, folds, share, ties), c, group, apart, ties)
    agreement, ceiling = between_raters(votes)
    head = fit(features[c.a], features[c.b], c.judged, out.spread, share, None, ties)
    return head, replace(out, agreement=agreement, ceiling=ceiling)


def rewards(head: Head, features: Array) -> Array:
    """Logits (n,) of features (n, D)."""
    return features @ head.weights
