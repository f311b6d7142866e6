"""What practice teaches: the filter beside exact recursions, and parameters that are found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afresh.domains.exercises.knowledge import bkt, learning
from afresh.domains.exercises.knowledge.answers import Answers
from afresh.domains.exercises.knowledge.learning import Belief, Learning


def answers(skills: list[int], right: list[bool], days: list[float] | None = None) -> Answers:
    """Of one learner, to the one exercise of each skill."""
    at = np.array(skills, dtype=np.int64)
    gaps = np.zeros(len(at)) if days is None else np.array(days)
    return Answers(at, at, np.array(right, dtype=bool), gaps, np.ones(len(at), dtype=bool))


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def plain(skills: int = 1) -> Learning:
    """Everybody learns as fast, no skill needs another, and little is forgotten."""
    net = Learning(list(range(skills)), skills).requires_grad_(False)
    for name, p in (("guess", 0.15), ("slip", 0.1), ("prior", 0.3), ("rate", 0.2)):
        getattr(net, name).fill_(logit(p))
    net.speed.zero_()
    net.need.fill_(-30)
    net.forget.fill_(-30)
    return net


def test_without_speeds_and_needs_it_is_bayesian_knowledge_tracing() -> None:
    right = [True, False, True, True, False]
    net, skill = plain(), bkt.Skill(known=0.3, learn=0.2, guess=0.15, slip=0.1)
    y, there = bkt.padded([np.array(right)])
    expected = bkt.forward(skill, y, there)[1][0] @ skill.emits[:, 1]
    np.testing.assert_allclose(learning.predictor(net)(answers([0] * 5, right)), expected, atol=1e-6)


def test_learners_of_several_lengths_together_are_as_each_alone() -> None:
    net = Learning([0, 1], 2).requires_grad_(False)
    several = [answers([0, 1, 1, 0], [True] * 4, [0, 1, 3, 0.5]), answers([1], [False]), answers([], [])]
    chances, belief = net(learning.padded(several, net))
    for i, a in enumerate(several):
        alone, last = net(learning.padded([a], net))
        torch.testing.assert_close(chances[i, : len(a)], alone[0])
        torch.testing.assert_close(belief.known[i], last.known[0])
        torch.testing.assert_close(belief.speed[i], last.speed[0])


def test_who_learns_slowly_is_told_by_answers_and_what_is_known_is_forgotten() -> None:
    net = plain()
    net.speed.copy_(torch.tensor([-2.0, 0.0, 2.0]))
    slow = net(learning.padded([answers([0] * 6, [False] * 6)], net))[1]
    fast = net(learning.padded([answers([0] * 6, [True] * 6)], net))[1]
    assert slow.speed[0, 0] > 1 / 3 > fast.speed[0, 0]
    assert float(learning.gain(net, slow)[0, 0]) < 0.75 * 0.2
    net.forget.fill_(0.0)  # log 2 a day
    assert float(net.wait(fast, torch.tensor([1.0])).mean()[0, 0]) == pytest.approx(0.5 * float(fast.mean()[0, 0]))


def test_the_gain_is_the_chance_to_learn_times_what_it_is_worth() -> None:
    net, belief = plain(2), plain(2).begin(1)
    found = learning.gain(net, belief)[0]
    assert float(found[0]) == pytest.approx(0.7 * 0.2 * (1 - 0.1 - 0.15) / 2)
    later = learning.ahead(net, belief, answers=1)[0]
    now = 0.3 * 0.75
    assert float(later[0]) == pytest.approx(now + float(found[0]))


def test_what_others_wait_for_comes_first() -> None:
    net = plain(3)
    net.need[1, 0] = net.need[2, 0] = 5.0  # the second and the third wait for the first
    net.rate.copy_(torch.tensor([0.0, 0.2, 0.2, 0.0]))
    belief = Belief(torch.tensor([0.0, 0.6, 0.6, 0.0]).expand(1, 3, 4), torch.full((1, 3), 1 / 3))
    net.need[0, 1] = 0.0
    assert learning.ahead(net, belief)[0, :3].argmax() == 0


def test_what_a_skill_needs_and_how_fast_it_is_learnt_are_found_again() -> None:
    """Of two skills, the second is learnt only by those who know the first."""
    rng = np.random.default_rng(0)
    learners = []
    for _ in range(200):
        known, skills, right = [False, False], [], []
        for _ in range(24):
            s = int(rng.integers(2))
            skills.append(s)
            right.append(bool(rng.random() < (0.9 if known[s] else 0.1)))
            known[s] |= bool(rng.random() < 0.3 and (s == 0 or known[0]))
        learners.append(answers(skills, right))
    net = learning.fit(learners, [0, 1], 2, steps=60)
    needs = net.needs()
    assert float(needs[1, 0]) > 0.5 > 2 * float(needs[0, 1])
    assert float(net.guess[:2].sigmoid().mean()) == pytest.approx(0.1, abs=0.04)
    assert float(net.slip[:2].sigmoid().mean()) == pytest.approx(0.1, abs=0.04)
