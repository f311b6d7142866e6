"""What synthetic rows are good for: a model that is fitted to them predicts a column of real rows."""

from __future__ import annotations

import numpy as np

from afresh.domains.table.fidelity import trees_matrix
from afresh.domains.table.frame import Frame
from afresh.domains.table.row import Header

MOST_CLASSES = 20  # of a target


def target_of(frame: Frame, wanted: str | None = None) -> int | None:
    """The column that is predicted: the one that is wanted; else the last one if it is a category with 2 to
    MOST_CLASSES values, or the last such one, or the last number. None if there is no other column to predict it from.
    """
    header: Header = frame.header
    if len(header.names) < 2:
        return None
    if wanted is not None:
        return header.names.index(wanted)
    usable = [i for i, n in enumerate(frame.levels) if 2 <= n <= MOST_CLASSES]
    numbers = [i for i, n in enumerate(frame.levels) if not n]
    return usable[-1] if usable else numbers[-1] if numbers else None


def predicts(train: Frame, test: Frame, target: int, seed: int = 0) -> float:
    """How well gradient-boosted trees of scikit-learn, fitted to `train`, predict column `target` of `test`: the AUC of
    two classes, the mean AUC of one against the rest of more, or R^2 of a number. Classes that either side lacks are
    left out; the score is that of guessing where only one is left."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import r2_score, roc_auc_score

    others = [i for i in range(len(train.columns)) if i != target]
    (a, categorical), (b, _) = trees_matrix(train), trees_matrix(test)
    y, truth = train.columns[target], test.columns[target]
    flags = [categorical[i] for i in others]
    if not train.levels[target]:
        known, counted = ~np.isnan(y), ~np.isnan(truth)
        model = HistGradientBoostingRegressor(categorical_features=flags, random_state=seed)
        model.fit(a[known][:, others], y[known])
        return float(r2_score(truth[counted], model.predict(b[counted][:, others])))
    shared = np.intersect1d(y, truth)
    if len(shared) < 2:
        return 0.5
    here, there = np.isin(y, shared), np.isin(truth, shared)
    classifier = HistGradientBoostingClassifier(categorical_features=flags, random_state=seed)
    classifier.fit(a[here][:, others], y[here])
    p = classifier.predict_proba(b[there][:, others])
    aucs = [roc_auc_score(truth[there] == c, p[:, i]) for i, c in enumerate(classifier.classes_)]
    return float(np.mean(aucs))
