"""Performance factors analysis: logistic regression of an answer on the right and wrong answers before it (Pavlik, Cen
and Koedinger 2009), with the difficulty of the exercise and, as in DAS3H (Choffin et al. 2019), counts in windows of
time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from afresh.domains.exercises.knowledge.answers import Answers, Array, Predictor

WINDOWS = (1 / 24, 1.0, 7.0, 30.0, float("inf"))  # days before an answer in which others are counted
PLAIN = (float("inf"),)


def fit(train: Sequence[Answers], items: int, skills: int, windows: Sequence[float] = PLAIN) -> Predictor:
    """The regression of `items` exercises and `skills` skills; with WINDOWS, it knows forgetting."""
    from sklearn.linear_model import LogisticRegression

    rows = [features(a, items, skills, windows) for a in train]
    x = stacked(rows, width(items, skills, windows))
    y = np.concatenate([a.right for a in train])
    if len(np.unique(y)) < 2:
        return lambda a: np.full(len(a), float(y.mean()))
    model = LogisticRegression(C=1.0, max_iter=300, solver="lbfgs").fit(x, y)

    def predict(a: Answers) -> Array:
        found = stacked([features(a, items, skills, windows)], width(items, skills, windows))
        return np.asarray(model.predict_proba(found)[:, 1], dtype=np.float64)

    return predict


def width(items: int, skills: int, windows: Sequence[float]) -> int:
    return items + skills + 2 * len(windows) * skills + 2 * len(windows)


Row = tuple[list[int], list[float]]  # columns that are not zero, and their values


def features(a: Answers, items: int, skills: int, windows: Sequence[float]) -> list[Row]:
    """Of each answer: its exercise, its skill, and log(1 + n) of the right and the wrong answers before it, to its
    skill and to all skills, within each window."""
    times = a.days.cumsum()
    out: list[Row] = []
    base, all_base = items + skills, items + skills + 2 * len(windows) * skills
    for t in range(len(a)):
        columns, values = [], []
        if a.items[t] >= 0:
            columns, values = [int(a.items[t])], [1.0]
        skill = int(a.skills[t])
        if skill >= 0:
            columns.append(items + skill)
            values.append(1.0)
        same = a.skills[:t] == skill
        for w, window in enumerate(windows):
            recent = times[t] - times[:t] <= window
            for outcome in (0, 1):
                hits = recent & (a.right[:t] == bool(outcome))
                if skill >= 0 and (n := int((hits & same).sum())):
                    columns.append(base + 2 * (w * skills + skill) + outcome)
                    values.append(float(np.log1p(n)))
                if n := int(hits.sum()):
                    columns.append(all_base + 2 * w + outcome)
                    values.append(float(np.log1p(n)))
        out.append((columns, values))
    return out


def stacked(learners: Sequence[Sequence[Row]], columns: int) -> csr_matrix:
    rows = [row for learner in learners for row in learner]
    ends = np.cumsum([0, *(len(c) for c, _ in rows)])
    index = np.array([c for row, _ in rows for c in row], dtype=np.int64)
    values = np.array([v for _, row in rows for v in row])
    return csr_matrix((values, index, ends), shape=(len(rows), columns))
