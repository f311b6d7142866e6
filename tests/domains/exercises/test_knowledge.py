"""Models of knowledge that are not networks: exact recursions, parameters that are found again, and scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from afresh.domains.exercises.history import Answer, AnswerHistory, with_gaps
from afresh.domains.exercises.knowledge import bkt, pfa
from afresh.domains.exercises.knowledge.answers import Answers, as_answers, tables
from afresh.domains.exercises.metrics import auc, calibration_error, estimated, log_loss, shares

SKILL = bkt.Skill(known=0.3, learn=0.2, guess=0.15, slip=0.1, forget=0.05)


def drawn(n: int, t: int, seed: int = 0) -> np.ndarray:
    """Outcomes of n learners of SKILL."""
    rng = np.random.default_rng(seed)
    known, out = rng.random(n) < SKILL.known, np.zeros((n, t), bool)
    for i in range(t):
        out[:, i] = rng.random(n) < np.where(known, 1 - SKILL.slip, SKILL.guess)
        known = np.where(known, rng.random(n) >= SKILL.forget, rng.random(n) < SKILL.learn)
    return out


def test_forward_is_the_sum_over_all_paths() -> None:
    y = np.array([[1, 0, 1, 1]])
    _, before, likely = bkt.forward(SKILL, y, np.ones_like(y, dtype=bool))
    total, last = 0.0, 0.0
    start = (1 - SKILL.known, SKILL.known)
    for path in itertools.product((0, 1), repeat=4):
        p = start[path[0]] * SKILL.emits[path[0], y[0, 0]]
        for i in range(1, 4):
            p *= SKILL.moves[path[i - 1], path[i]] * (SKILL.emits[path[i], y[0, i]] if i < 3 else 1)
        last += p * path[3]
        total += p * SKILL.emits[path[3], y[0, 3]]
    assert np.exp(np.log(likely).sum()) == pytest.approx(total)
    assert before[0, 3, 1] == pytest.approx(last / np.exp(np.log(likely[0, :3]).sum()))


def test_each_round_raises_the_likelihood_and_missing_answers_change_nothing() -> None:
    y, there = bkt.padded([*drawn(40, 8), *drawn(20, 3, seed=1)])
    skill, nats = bkt.Skill(0.5, 0.3, 0.3, 0.3, 0.1), []
    for _ in range(6):
        skill, now = bkt.maximised(skill, y, there, forgets=True)
        nats.append(now)
    assert nats == sorted(nats)
    longer = np.pad(y, ((0, 0), (0, 5)), constant_values=1)
    padded = np.pad(there, ((0, 0), (0, 5)))
    first, second = bkt.maximised(SKILL, y, there, True), bkt.maximised(SKILL, longer, padded, True)
    assert second[1] == pytest.approx(first[1]) and vars(second[0]) == pytest.approx(vars(first[0]))


def test_parameters_are_found_again() -> None:
    found, _ = bkt.fit_skill(list(drawn(1500, 15)), forgets=True)
    assert vars(found) == pytest.approx(vars(SKILL), abs=0.05)


def log(n: int = 60, t: int = 20) -> tuple[list[Answers], int, int]:
    right = drawn(n, t)
    histories = [
        AnswerHistory(
            with_gaps([Answer(f"e{j % 4}", bool(r), f"s{j % 2}", time=1e9 + 3600.0 * j) for j, r in enumerate(row)])
        )
        for row in right
    ]
    names = tables(histories)
    return [as_answers(h, *names) for h in histories], len(names[0]), len(names[1])


@pytest.mark.parametrize("windows", [pfa.PLAIN, pfa.WINDOWS])
def test_pfa_knows_more_than_the_exercise_alone(windows: tuple[float, ...]) -> None:
    answers, items, skills = log()
    predict, trivial = pfa.fit(answers[:40], items, skills, windows), shares(answers[:40], items)
    right = np.concatenate([a.right for a in answers[40:]])
    ours, theirs = (np.concatenate([p(a) for a in answers[40:]]) for p in (predict, trivial))
    assert auc(right, ours) > auc(right, theirs)


def test_features_count_the_answers_before() -> None:
    a = Answers(*(np.array(v) for v in ([0, 1, 0], [0, 0, 1], [True, False, True], [0.0, 0.1, 9.0], [True] * 3)))
    rows = pfa.features(a, 2, 2, (1.0, float("inf")))
    assert rows[0] == ([0, 2], [1.0, 1.0])
    one = float(np.log(2))
    assert dict(zip(*rows[1], strict=True)) == {1: 1.0, 2: 1.0, 5: one, 9: one, 13: one, 15: one}
    assert dict(zip(*rows[2], strict=True)) == {0: 1.0, 3: 1.0, 14: one, 15: one}


def test_scores_in_closed_form() -> None:
    right = np.array([True, False, True, False])
    chance = np.array([0.9, 0.1, 0.4, 0.4])
    assert auc(right, chance) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert auc(np.array([True]), np.array([0.3])) == 0.5
    assert log_loss(right, chance) == pytest.approx(-np.log([0.9, 0.9, 0.4, 0.6]).mean())
    sure = np.repeat([0.25, 0.75], 40)
    fair = np.tile([True, False, False, False], 10)
    assert calibration_error(np.concatenate([fair, ~fair]), sure) == pytest.approx(0.0)
    assert calibration_error(np.concatenate([fair, fair]), sure) == pytest.approx(0.25)


def test_intervals_are_over_learners() -> None:
    rng = np.random.default_rng(0)
    chances = [rng.random(30) for _ in range(40)]
    right = [rng.random(30) < p for p in chances]
    found = estimated(auc, right, chances)
    assert found.low is not None and found.high is not None
    assert found.low < 5 / 6 < found.high and found.n == 1200  # of outcomes drawn with uniform chances
