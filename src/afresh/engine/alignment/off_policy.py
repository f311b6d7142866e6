"""What another policy would have earned, estimated from a log of what was shown, with which probability, and what that
earned.

One list, or one item, is one decision. The reward of a place counts the ratio of the two policies' probabilities of
that place and of those before it, since what is shown at a place depends on what was shown above (Precup et al. 2000).
The sum of the rewards of a list is estimated in three ways:

- IPS: the weighted rewards (Horvitz and Thompson 1952). Unbiased, and wide.
- SNIPS: the same over the sum of the weights (Swaminathan and Joachims 2015). Biased by an order of 1/n, and narrower.
- DR: a model of the reward, corrected by its weighted errors (Dudik et al. 2011; for lists, Jiang and Li 2016).
  Unbiased where the probabilities are right, and where the model is.

The intervals are normal on the influence function of each estimate. None of them holds for what the old policy never
showed, which `refusal` looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.engine.evaluation.estimate import Z95, Estimate

Array = NDArray[np.float64]
Index = NDArray[np.int64]

LEAST_SAMPLE = 30.0  # effective decisions, below which a normal interval is not to be believed
MOST_WEIGHT = 1_000.0  # of one decision
MISSING = 0.1  # by which the mean weight may fall short of 1, since a few large weights make up much of it,
ERRORS = 4.0  # and standard errors
FOLDS = 5


@dataclass(frozen=True, eq=False)
class ShownItems:
    """N rows of a log: the item at one place of one list each, in the order of their lists and places.

    `decision` (N,) numbers the lists from 0; `place` (N,) counts from 0 in each. `drawn` (N,) in (0, 1] is the
    probability with which the old policy put the item there, given the places before; `wanted` (N,) is that of the new
    policy. `reward` (N,) is what the place earned. Raises UserError for values out of these ranges.
    """

    decision: Index
    place: Index
    drawn: Array
    wanted: Array
    reward: Array

    def __post_init__(self) -> None:
        if not len(self.drawn):
            raise UserError("The log has no row.")
        for name, fits in (
            ("drawn", np.isfinite(self.drawn) & (self.drawn > 0) & (self.drawn <= 1)),
            ("wanted", np.isfinite(self.wanted) & (self.wanted >= 0) & (self.wanted <= 1 + 1e-6)),
            ("reward", np.isfinite(self.reward)),
        ):
            if not fits.all():
                row = int(np.flatnonzero(~fits)[0])
                raise UserError(
                    f"Probabilities of what is shown are above 0 and at most 1, and rewards are numbers. Row {row + 1} "
                    f"has {getattr(self, name)[row]} for {name}."
                )

    @property
    def size(self) -> int:
        """The number of decisions."""
        return int(self.decision[-1]) + 1

    @cached_property
    def starts(self) -> Index:
        """The first row of each decision."""
        return np.flatnonzero(self.place == 0)

    @cached_property
    def weight(self) -> Array:
        """(N,): the product of wanted / drawn over the places of a list up to this one."""
        out = self.wanted / self.drawn
        for place in range(1, int(self.place.max()) + 1):
            rows = np.flatnonzero(self.place == place)
            out[rows] *= out[rows - 1]
        return out

    @cached_property
    def before(self) -> Array:
        """(N,): the weight of the places before, 1 for the first."""
        out = np.ones(len(self.weight))
        later = self.place > 0
        out[later] = self.weight[np.flatnonzero(later) - 1]
        return out

    def total(self, values: Array) -> Array:
        """The sum over the places of each decision of values (N,), (decisions,)."""
        out: Array = np.bincount(self.decision, values, self.size).astype(np.float64)
        return out


@dataclass(frozen=True)
class Value:
    """What a policy earns in a decision, and how much more than the old policy's log, with 95% intervals."""

    value: Estimate
    gain: Estimate


@dataclass(frozen=True)
class OffPolicy:
    """`logged`: what the log earned. `estimates`: by ips, snips and dr. `effective`: decisions that count, of
    `decisions`, at the place where they are fewest. `most`: the largest weight. `mean`: that of the weights, 1 if the
    old policy showed all that the new one shows. `clipped`: the weight at which larger ones were cut, and how many."""

    logged: Estimate
    estimates: Mapping[str, Value]
    decisions: int
    effective: float
    most: float
    mean: Estimate
    clipped: tuple[float, int] | None = None


def off_policy(
    shown: ShownItems, predicted: Array | None = None, expected: Array | None = None, clip: float | None = None
) -> OffPolicy:
    """The three estimates; DR only with a model of the reward.

    `predicted` (N,): what the model says of the reward of the item that was shown. `expected` (N,): its mean over the
    items that the new policy would show at this place, given the places before. With cross-fitting both come from a
    model that has not seen the decision. `clip`: larger weights are set to it, which lessens the variance at the cost
    of a bias that no interval shows.
    """
    weight, before = shown.weight, shown.before
    clipped = None
    if clip is not None:
        clipped = (clip, int((weight > clip).sum()))
        weight, before = np.minimum(weight, clip), np.minimum(before, clip)
    earned = shown.total(shown.reward)
    found = {"ips": shown.total(weight * shown.reward), "snips": normalised(shown, weight)}
    if predicted is not None and expected is not None:
        found["dr"] = shown.total(before * expected + weight * (shown.reward - predicted))
    estimates = {name: Value(of_influence(v), of_influence(v - earned)) for name, v in found.items()}
    last = np.append(shown.starts[1:], len(weight)) - 1
    return OffPolicy(
        of_influence(earned),
        estimates,
        shown.size,
        effective_size(shown, weight),
        float(weight.max()),
        of_influence(shown.weight[last]),
        clipped,
    )


def of_influence(values: Array) -> Estimate:
    """The mean of what each decision contributes, with a normal interval."""
    value, n = float(values.mean()), len(values)
    if n < 2:
        return Estimate(value, None, None, n)
    half = Z95 * float(values.std(ddof=1)) / n**0.5
    return Estimate(value, value - half, value + half, n)


def normalised(shown: ShownItems, weight: Array) -> Array:
    """What each decision contributes to SNIPS, by the delta method: a ratio of means for each place, linearised. Their
    mean is the estimate itself."""
    out = np.zeros(shown.size)
    for place in range(int(shown.place.max()) + 1):
        rows = shown.place == place
        w, r = weight[rows], shown.reward[rows]
        if not w.any():
            continue
        ratio = float((w * r).sum() / w.sum())
        out[shown.decision[rows]] += ratio + w * (r - ratio) / w.mean()  # shorter lists have no reward at this place
    return out


def effective_size(shown: ShownItems, weight: Array) -> float:
    """Decisions of equal weight that would be as precise (Kish 1965), at the place where they are fewest."""
    sizes = []
    for place in range(int(shown.place.max()) + 1):
        w = weight[shown.place == place]
        sizes.append(float(w.sum() ** 2 / np.square(w).sum()) if w.any() else 0.0)
    return min(sizes)


def refusal(found: OffPolicy) -> str | None:
    """Why these estimates are not to be believed: the new policy shows what the old one never or hardly did. None if
    nothing speaks against them."""
    reasons = []
    if found.effective < LEAST_SAMPLE:
        reasons.append(
            f"the {found.decisions:,} decisions of the log count as {found.effective:.1f}, and at least "
            f"{LEAST_SAMPLE:.0f} are needed"
        )
    if found.most > MOST_WEIGHT:
        reasons.append(f"one decision counts {found.most:,.0f} times, and at most {MOST_WEIGHT:,.0f} times is accepted")
    mean = found.mean
    if mean.low is not None:
        error = (mean.value - mean.low) / Z95
        if 1 - mean.value > max(MISSING, ERRORS * error):
            reasons.append(f"about {1 - mean.value:.0%} of what the new policy shows was never shown")
    return "; ".join(reasons) or None


# ------------------------------------------------------------------------------------------------ a model of the reward

Features = Callable[[Index], Array]  # rows (n,) -> (n, V, F), what is known of each item at these places


def cross_fitted(
    shown: ShownItems,
    item: Index,
    policy: Callable[[Index], Array],
    features: Features,
    seed: int = 0,
    rows_together: int = 512,
) -> tuple[Array, Array]:
    """(predicted, expected), each (N,), for `off_policy`: a regression of the reward on features of the item at its
    place and an effect of each item (logistic for rewards of 0 and 1, ridge otherwise), fitted for each fold of the
    decisions to the other folds (Chernozhukov et al. 2018).

    `item` (N,): the number of the item shown; -1 for one that the new policy does not know, which is not learnt from.
    `policy`: rows (n,) -> (n, V), the new policy's probabilities at these
    places.
    """
    n = len(item)
    parts = [np.arange(a, min(a + rows_together, n)) for a in range(0, n, rows_together)]
    own = np.concatenate([features(rows)[np.arange(len(rows)), item[rows]] for rows in parts])
    centre, scale = own.mean(0), np.maximum(own.std(0), 1e-9)
    items = policy(parts[0][:1]).shape[1]
    folds = np.random.default_rng(seed).permutation(shown.size) % min(FOLDS, shown.size)
    fold = folds[shown.decision]
    models = [
        _fit((own - centre) / scale, item, shown.reward, (fold != k) & (item >= 0), items)
        for k in range(int(folds.max()) + 1)
    ]
    predicted, expected = np.zeros(n), np.zeros(n)
    for rows in parts:
        x, p = (features(rows) - centre) / scale, policy(rows)
        for k, model in enumerate(models):
            here = fold[rows] == k
            q = model(x[here])  # (rows, V)
            predicted[rows[here]] = q[np.arange(len(q)), item[rows[here]]]
            expected[rows[here]] = (p[here] * q).sum(1)
    return predicted, expected


def _fit(x: Array, item: Index, reward: Array, which: NDArray[np.bool_], items: int) -> Callable[[Array], Array]:
    """The regression, as a function of features (n, V, F) -> (n, V)."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression, Ridge

    x, item, reward = x[which], item[which], reward[which]
    if not len(reward) or (reward == reward[0]).all():
        same = float(reward[0]) if len(reward) else 0.0
        return lambda features: np.full(features.shape[:2], same)
    effects = sparse.csr_matrix((np.ones(len(item)), (np.arange(len(item)), item)), shape=(len(item), items))
    table = sparse.hstack([sparse.csr_matrix(x), effects]).tocsr()
    binary = bool(np.isin(reward, (0, 1)).all())
    model = LogisticRegression(max_iter=500) if binary else Ridge()
    model.fit(table, reward)
    slope, own = np.split(np.ravel(model.coef_), [x.shape[1]])
    base = float(np.ravel(model.intercept_)[0])

    def predict(features: Array) -> Array:
        score = features @ slope + own + base
        return 1 / (1 + np.exp(-score)) if binary else score

    return predict
