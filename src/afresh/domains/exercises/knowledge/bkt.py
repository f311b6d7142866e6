"""Bayesian knowledge tracing: each skill is known or not, and learnt by practice (Corbett and Anderson 1995).

Parameters of each skill are found by expectation and maximisation with the exact forward-backward recursion (Rabiner
1989, eq. 19 to 40) over its two states, from several starts. `forgets` adds the chance to forget between two answers,
as in pyBKT (Badrinath et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.domains.exercises.knowledge.answers import Answers, Array, Predictor

STARTS = ((0.3, 0.2, 0.2, 0.1, 0.05), (0.6, 0.1, 0.3, 0.2, 0.02), (0.1, 0.4, 0.1, 0.05, 0.1))
ROUNDS, TOLERANCE = 200, 1e-5  # of expectation and maximisation; nats an answer by which the last one must gain
LEAST = 1e-3  # of each probability, so that none becomes certain by chance


@dataclass(frozen=True)
class Skill:
    """The chance that a skill is known at first, is learnt by an answer, guessed, slipped, and forgotten."""

    known: float
    learn: float
    guess: float
    slip: float
    forget: float = 0.0

    @property
    def emits(self) -> Array:
        """(state, wrong or right)."""
        return np.array([[1 - self.guess, self.guess], [self.slip, 1 - self.slip]])

    @property
    def moves(self) -> Array:
        """(from, to)."""
        return np.array([[1 - self.learn, self.learn], [self.forget, 1 - self.forget]])


def padded(rows: Sequence[NDArray[np.bool_]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Outcomes (N, T) of N learners, and which of them there are."""
    longest = max(map(len, rows))
    y, there = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), bool)
    for i, row in enumerate(rows):
        y[i, : len(row)], there[i, : len(row)] = row, True
    return y, there


def forward(skill: Skill, y: NDArray[np.int64], there: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """The chance of each state after (N, T, 2) and before (N, T, 2) each outcome is seen, and that of each outcome
    given those before it (N, T), 1 where none exists."""
    n, t = y.shape
    before, after, likely = np.zeros((n, t, 2)), np.zeros((n, t, 2)), np.ones((n, t))
    state = np.tile([1 - skill.known, skill.known], (n, 1))
    for i in range(t):
        before[:, i] = state
        joint = state * skill.emits.T[y[:, i]]
        total = joint.sum(1)
        after[:, i] = joint / total[:, None]
        likely[:, i] = np.where(there[:, i], total, 1.0)
        state = after[:, i] @ skill.moves
    return after, before, likely


def maximised(skill: Skill, y: NDArray[np.int64], there: NDArray[np.bool_], forgets: bool) -> tuple[Skill, float]:
    """One round of expectation and maximisation, and the log-likelihood in nats before it."""
    after, _, likely = forward(skill, y, there)
    n, t = y.shape
    back = np.ones((n, 2))
    smooth = np.zeros((n, t, 2))
    moved = np.zeros((2, 2))
    for i in range(t - 1, -1, -1):
        smooth[:, i] = after[:, i] * back
        smooth[:, i] /= smooth[:, i].sum(1, keepdims=True)
        if i:
            emitted = skill.emits.T[y[:, i]] * back / likely[:, i, None]
            pairs = after[:, i - 1, :, None] * skill.moves * emitted[:, None]
            moved += pairs[there[:, i]].sum(0)
            back = np.where(there[:, i, None], emitted @ skill.moves.T, 1.0)
    counted = smooth[there]
    right = y[there].astype(bool)

    def share(part: float, whole: float) -> float:
        return float(np.clip(part / max(whole, 1e-12), LEAST, 1 - LEAST))

    found = Skill(
        share(smooth[:, 0, 1].sum(), n),
        share(moved[0, 1], moved[0].sum()),
        share(counted[right, 0].sum(), counted[:, 0].sum()),
        share(counted[~right, 1].sum(), counted[:, 1].sum()),
        share(moved[1, 0], moved[1].sum()) if forgets else 0.0,
    )
    return found, float(np.log(likely).sum())


def fit_skill(rows: Sequence[NDArray[np.bool_]], forgets: bool = False) -> tuple[Skill, float]:
    """The parameters of the highest likelihood of several starts, and its nats. A skill that is guessed better than it
    is known after learning it would be upside down; such a start is left out if there is another."""
    y, there = padded(rows)
    found = []
    for known, learn, guess, slip, forget in STARTS:
        skill, nats = Skill(known, learn, guess, slip, forget if forgets else 0.0), -np.inf
        for _ in range(ROUNDS):
            better, now = maximised(skill, y, there, forgets)
            if now - nats < TOLERANCE * there.sum():
                break
            skill, nats = better, now
        found.append((skill.guess < 1 - skill.slip, nats, skill))
    _, nats, skill = max(found, key=lambda f: f[:2])
    return skill, nats


def fit(train: Sequence[Answers], skills: int, forgets: bool = False) -> Predictor:
    """BKT of each of `skills` skills. Skills with fewer than two answers have the parameters of all together."""
    by_skill: list[list[NDArray[np.bool_]]] = [[] for _ in range(skills)]
    for a in train:
        for s in np.unique(a.skills[a.skills >= 0]):
            by_skill[s].append(a.right[a.skills == s])
    rows = [r for found in by_skill for r in found]
    common = fit_skill(rows[:2000], forgets)[0]
    fitted = [fit_skill(r, forgets)[0] if sum(map(len, r)) > 1 else common for r in by_skill]

    def predict(a: Answers) -> Array:
        out = np.zeros(len(a))
        for s in np.unique(a.skills):
            skill, here = (common if s < 0 else fitted[s]), a.skills == s
            y, there = padded([a.right[here]])
            _, before, _ = forward(skill, y, there)
            out[here] = before[0] @ skill.emits[:, 1]
        return out

    return predict
