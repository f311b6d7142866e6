"""How alike two tables are: column by column, pair by pair, and whether a classifier tells their rows apart.

Each is a similarity from 0 to 1. The first two are those of SDMetrics (KSComplement, TVComplement,
CorrelationSimilarity, ContingencySimilarity): the complements of the Kolmogorov-Smirnov statistic and of the total
variation distance, and how alike correlations and contingency tables are.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from afresh.domains.table.frame import Floats, Frame, Ints

PARTS = 10  # of equal width, that a number has in a contingency table with a category
FOLDS = 3  # of the classifier's cross-validation
MOST_LEVELS = 255  # categories that scikit-learn's trees tell apart; the rarest others are one


def column_similarity(real: Floats, other: Floats, levels: int) -> float:
    """1 minus the Kolmogorov-Smirnov statistic of two samples of numbers, or 1 minus the total variation distance of
    two of categories. For numbers, it is multiplied by 1 minus the difference of the shares that are missing."""
    if levels:
        p, q = (np.bincount(c.astype(np.int64), minlength=levels) / len(c) for c in (real, other))
        return 1 - float(np.abs(p - q).sum()) / 2
    missing = abs(float(np.isnan(real).mean() - np.isnan(other).mean()))
    a, b = (np.sort(c[~np.isnan(c)]) for c in (real, other))
    if not len(a) or not len(b):
        return 1 - missing
    every = np.concatenate([a, b])
    between = np.searchsorted(a, every, side="right") / len(a) - np.searchsorted(b, every, side="right") / len(b)
    return (1 - missing) * (1 - float(np.abs(between).max()))


def marginals(real: Frame, other: Frame) -> float:
    """The mean similarity of columns."""
    each = zip(real.columns, other.columns, real.levels, strict=True)
    return float(np.mean([column_similarity(*column) for column in each]))


def correlation_similarity(real: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> float:
    """1 - |difference of Pearson's correlations| / 2 over rows with both numbers; 1 where either has none."""
    found = [_correlation(*pair) for pair in (real, other)]
    return 1 - abs(found[0] - found[1]) / 2 if all(np.isfinite(found)) else 1.0


def _correlation(x: Floats, y: Floats) -> float:
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = x[both], y[both]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def contingency_similarity(real: tuple[Ints, Ints], other: tuple[Ints, Ints], levels: tuple[int, int]) -> float:
    """1 minus the total variation distance of the joint frequencies of two columns of categories."""
    tables = []
    for x, y in (real, other):
        tables.append(np.bincount(x * levels[1] + y, minlength=levels[0] * levels[1]) / len(x))
    return 1 - float(np.abs(tables[0] - tables[1]).sum()) / 2


def pairs(real: Frame, other: Frame) -> float:
    """The mean similarity of pairs of columns: of correlations where both are numbers, otherwise of contingency tables,
    in which a number is one of PARTS parts of equal width of the real range, or missing. A table of one column has no
    pairs: 1."""
    parts = [_in_parts(a, b, n) for a, b, n in zip(real.columns, other.columns, real.levels, strict=True)]
    scores = []
    for i, j in combinations(range(len(real.columns)), 2):
        if not real.levels[i] and not real.levels[j]:
            both = ((f.columns[i], f.columns[j]) for f in (real, other))
            scores.append(correlation_similarity(*both))
        else:
            (a, b, n), (c, d, m) = parts[i], parts[j]
            scores.append(contingency_similarity((a, c), (b, d), (n, m)))
    return float(np.mean(scores)) if scores else 1.0


def _in_parts(real: Floats, other: Floats, levels: int) -> tuple[Ints, Ints, int]:
    if levels:
        return real.astype(np.int64), other.astype(np.int64), levels
    known = real[~np.isnan(real)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    edges = np.linspace(low, high, PARTS + 1)[1:-1]
    both = (np.where(np.isnan(c), PARTS, np.searchsorted(edges, c, side="right")) for c in (real, other))
    a, b = (c.astype(np.int64) for c in both)
    return a, b, PARTS + 1


def trees_matrix(frame: Frame) -> tuple[Floats, list[bool]]:
    """What scikit-learn's gradient-boosted trees are given, and which columns are categories."""
    columns = [np.minimum(c, MOST_LEVELS - 1) if n else c for c, n in zip(frame.columns, frame.levels, strict=True)]
    return np.stack(columns, 1), frame.categorical


def told_apart(real: Frame, other: Frame, seed: int = 0) -> tuple[Floats, Floats]:
    """The probability of being real that a classifier gives each row, of both tables, from a model that was not fitted
    to the row. Gradient-boosted trees of scikit-learn, FOLDS-fold cross-validated."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    (a, categorical), (b, _) = trees_matrix(real), trees_matrix(other)
    y = np.repeat([1, 0], [len(a), len(b)])
    leaf = max(2, min(20, len(y) // 20))  # of few rows, leaves of 20, as is usual, would tell nothing apart
    model = HistGradientBoostingClassifier(categorical_features=categorical, min_samples_leaf=leaf, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    p = cross_val_predict(model, np.concatenate([a, b]), y, cv=folds, method="predict_proba")[:, 1]
    return p[: len(a)], p[len(a) :]


def separation(real: Floats, other: Floats) -> float:
    """The AUC of probabilities of being real: one half if rows cannot be told apart."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(np.repeat([1, 0], [len(real), len(other)]), np.concatenate([real, other])))


def detection(real: Floats, other: Floats) -> float:
    """1 - (2 max(AUC, 1/2) - 1) of probabilities of being real: 1 if rows cannot be told apart, 0 if all can
    (SDMetrics' detection, with trees in place of a logistic regression)."""
    return undetected(separation(real, other))


def undetected(auc: float) -> float:
    return 2 - 2 * min(1.0, max(0.5, auc))
