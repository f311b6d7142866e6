"""Estimates from what another policy showed: exact by enumeration, with intervals that hold, or refused."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest

from afresh.core import UserError
from afresh.engine.alignment.off_policy import ShownItems, cross_fitted, effective_size, off_policy, refusal

OLD = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])  # of 3 items for 2 users, who come equally often
NEW = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]])
WORTH = np.array([[0.1, 0.9, 0.4], [0.8, 0.5, 0.2]])  # the chance of a click
WRONG = np.array([[0.7, 0.2, 0.9], [0.1, 0.6, 0.4]])  # what a bad model says of it, of each item something else


def lists(user: int, policy: np.ndarray, shown: tuple[int, ...]) -> list[float]:
    """The probability of each item of a list that is drawn without replacement, given those before."""
    left, out = 1.0, []
    for item in shown:
        out.append(policy[user, item] / left)
        left -= policy[user, item]
    return out


def shown_lists(cases: list[tuple[int, tuple[int, ...]]], reward: list[float]) -> ShownItems:
    length = len(cases[0][1])
    return ShownItems(
        np.repeat(np.arange(len(cases)), length),
        np.tile(np.arange(length), len(cases)),
        np.array([p for user, items in cases for p in lists(user, OLD, items)]),
        np.array([p for user, items in cases for p in lists(user, NEW, items)]),
        np.array(reward),
    )


def model(cases: list[tuple[int, tuple[int, ...]]], worth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a model of the reward says of each place, and its mean over what NEW would show there."""
    predicted, expected = [], []
    for user, items in cases:
        for place, item in enumerate(items):
            p = NEW[user].copy()
            p[list(items[:place])] = 0
            predicted.append(worth[user, item])
            expected.append(float(p @ worth[user] / p.sum()))
    return np.array(predicted), np.array(expected)


@pytest.mark.parametrize("length", [1, 2])
def test_ips_and_dr_are_right_on_average_over_all_that_can_happen(length: int) -> None:
    """Every list and every outcome, each with its probability; DR with a model that is wrong. (A model that says the
    same of all items would not show whether it is weighted by the places before, whose mean weight is 1.)"""
    truth, mean, total = 0.0, {"ips": 0.0, "dr": 0.0}, 0.0
    for user in range(2):
        for items in permutations(range(3), length):
            truth += math.prod(lists(user, NEW, items)) * WORTH[user, list(items)].sum() / 2
            for clicks in product((0.0, 1.0), repeat=length):
                chance = math.prod(lists(user, OLD, items)) / 2
                chance *= math.prod(w if c else 1 - w for w, c in zip(WORTH[user, list(items)], clicks, strict=True))
                case = [(user, items)]
                found = off_policy(shown_lists(case, list(clicks)), *model(case, WRONG))
                total += chance
                for name in mean:
                    mean[name] += chance * found.estimates[name].value.value
    assert total == pytest.approx(1)
    assert mean == pytest.approx({"ips": truth, "dr": truth})


def log(n: int, seed: int = 0, length: int = 1) -> tuple[ShownItems, list[tuple[int, tuple[int, ...]]], float]:
    """n lists drawn by OLD, their clicks, and what NEW earns."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(n):
        user = int(rng.integers(2))
        cases.append((user, tuple(rng.choice(3, length, replace=False, p=OLD[user]).tolist())))
    reward = [float(rng.random() < WORTH[user, item]) for user, items in cases for item in items]
    truth = sum(
        math.prod(lists(user, NEW, items)) * WORTH[user, list(items)].sum() / 2
        for user in range(2)
        for items in permutations(range(3), length)
    )
    return shown_lists(cases, reward), cases, truth


def test_dr_is_exact_if_the_model_is_even_if_the_probabilities_are_not() -> None:
    shown, cases, _ = log(40)
    right = np.array([WORTH[user, items[0]] for user, items in cases])
    wrong = ShownItems(shown.decision, shown.place, np.full(40, 0.123), shown.wanted, right)
    predicted, expected = model(cases, WORTH)
    assert off_policy(wrong, predicted, expected).estimates["dr"].value.value == pytest.approx(float(expected.mean()))
    assert off_policy(wrong).estimates["ips"].value.value != pytest.approx(float(expected.mean()), rel=0.1)


def test_dr_is_given_only_with_both_parts_of_the_model() -> None:
    shown, cases, _ = log(40)
    predicted, expected = model(cases, WRONG)
    assert off_policy(shown, predicted, expected).estimates.keys() == {"ips", "snips", "dr"}
    assert off_policy(shown, predicted).estimates.keys() == {"ips", "snips"}
    assert off_policy(shown, None, expected).estimates.keys() == {"ips", "snips"}


def test_snips_of_a_constant_reward_is_the_constant() -> None:
    shown, _, _ = log(50)
    same = ShownItems(shown.decision, shown.place, shown.drawn, shown.wanted, np.full(50, 0.7))
    found = off_policy(same).estimates["snips"].value
    assert found.value == pytest.approx(0.7) and found.high == pytest.approx(0.7)


@pytest.mark.parametrize("length", [1, 2])
def test_the_truth_is_in_the_intervals(length: int) -> None:
    inside = {"ips": 0, "snips": 0, "dr": 0}
    for seed in range(100):
        shown, cases, truth = log(200, seed, length)
        found = off_policy(shown, *model(cases, np.full((2, 3), 0.4)))
        for name, value in found.estimates.items():
            assert value.value.low is not None and value.value.high is not None
            inside[name] += value.value.low <= truth <= value.value.high
    assert all(88 <= hits <= 99 for hits in inside.values()), inside


def test_the_policy_that_was_shown_earns_what_was_logged() -> None:
    shown, _, _ = log(60, length=2)
    same = ShownItems(shown.decision, shown.place, shown.drawn, shown.drawn, shown.reward)
    found = off_policy(same)
    for value in found.estimates.values():
        assert value.value == found.logged
        assert value.gain.value == pytest.approx(0, abs=1e-12)
    assert found.effective == pytest.approx(60) and refusal(found) is None


def test_what_was_never_shown_is_refused_with_the_reason() -> None:
    shown, _, _ = log(500)
    never = ShownItems(shown.decision, shown.place, shown.drawn, np.zeros(500), shown.reward)
    assert "about 100% of what the new policy shows was never shown" in (refusal(off_policy(never)) or "")
    rare = np.full(500, 0.5)
    rare[0] = 1e-6
    heavy = ShownItems(shown.decision, shown.place, rare, np.full(500, 0.5), shown.reward)
    reason = refusal(off_policy(heavy)) or ""
    assert "count as 1.0" in reason and "counts 500,000 times" in reason


@pytest.mark.parametrize(
    ("never", "n", "weight", "refused"), [(0.08, 5000, 1, False), (0.12, 5000, 1, True), (0.3, 40, 4, False)]
)
def test_what_was_never_shown_is_refused_from_a_tenth_on_unless_by_chance(
    never: float, n: int, weight: int, refused: bool
) -> None:
    """The mean weight is as much below 1 as the new policy shows what was never shown. Of 40 decisions with weights of
    0 and 4, it may be .7 by chance."""
    wanted = np.where(np.arange(n) < (1 - never) * n / weight, weight / 4, 0.0)
    found = off_policy(ShownItems(np.arange(n), np.zeros(n, np.int64), np.full(n, 0.25), wanted, np.ones(n)))
    assert found.mean.value == pytest.approx(1 - never)
    assert (f"about {never:.0%} of what the new policy shows" in (refusal(found) or "")) == refused


def test_weights_are_cut_only_if_asked_and_it_is_said() -> None:
    shown, _, _ = log(100)
    assert off_policy(shown).clipped is None and off_policy(shown).most > 1.5
    found = off_policy(shown, clip=1.5)
    assert found.most == 1.5
    assert found.clipped == (1.5, int((shown.weight > 1.5).sum()))


def test_the_effective_size_is_that_of_the_worst_place() -> None:
    weights = np.array([1.0, 4.0, 1.0, 0.0])
    shown = ShownItems(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.ones(4), np.ones(4), np.ones(4))
    assert effective_size(shown, weights) == pytest.approx(1)


@pytest.mark.parametrize("clicks", [True, False])
def test_the_model_of_a_decision_has_not_seen_it(clicks: bool) -> None:
    """Whatever a decision earned, at any of its places, what is said of it stays the same to the bit; what is said of
    decisions of other folds does not."""
    rng = np.random.default_rng(0)
    n, length, items = 40, 2, 5
    item = rng.integers(items, size=n * length)
    reward = rng.integers(0, 2, n * length).astype(float) if clicks else rng.normal(0, 1, n * length)
    known = rng.normal(0, 1, (n * length, items, 3))

    def learnt(reward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        decision, place = np.repeat(np.arange(n), length), np.tile(np.arange(length), n)
        shown = ShownItems(decision, place, np.full(n * length, 0.2), np.full(n * length, 0.2), reward)
        return cross_fitted(shown, item, lambda rows: np.full((len(rows), items), 0.2), lambda rows: known[rows])

    before = learnt(reward)
    for own in (slice(0, 2), slice(17, 18)):
        other = reward.copy()
        other[own] = 1 - other[own]
        decision = slice(own.start - own.start % length, own.start - own.start % length + length)
        for was, now in zip(before, learnt(other), strict=True):
            assert np.array_equal(was[decision], now[decision])
            assert np.mean(was != now) > 0.5


def test_a_model_of_the_reward_finds_what_is_worth_something() -> None:
    """For clicks and for ratings; and it gives DR a narrower interval than IPS."""
    rng = np.random.default_rng(0)
    n, items = 600, 6
    worth = np.linspace(0.05, 0.9, items)
    item = rng.integers(items, size=n)
    new = np.array([0.0, 0.1, 0.1, 0.1, 0.2, 0.5])
    for reward in ((rng.random(n) < worth[item]).astype(float), 10 * worth[item] + rng.normal(0, 0.5, n)):
        shown = ShownItems(np.arange(n), np.zeros(n, np.int64), np.full(n, 1 / items), new[item], reward)
        scale = 1.0 if reward.max() <= 1 else 10.0
        predicted, expected = cross_fitted(
            shown, item, lambda r: np.tile(new, (len(r), 1)), lambda r: np.zeros((len(r), items, 1))
        )
        assert np.corrcoef(predicted, worth[item])[0, 1] > 0.95
        assert expected.mean() == pytest.approx(scale * float(new @ worth), rel=0.1)
        found = off_policy(shown, predicted, expected).estimates
        widths = {k: (v.value.high or 0) - (v.value.low or 0) for k, v in found.items()}
        assert widths["dr"] < widths["ips"]


def test_probabilities_and_rewards_out_of_range_are_refused() -> None:
    one = np.array([0])
    for drawn, wanted, reward, said in (
        (0.0, 1.0, 1.0, "drawn"),
        (0.5, 2.0, 1.0, "wanted"),
        (0.5, 1.0, math.nan, "rew"),
    ):
        with pytest.raises(UserError, match=f"Row 1 has .* for {said}"):
            ShownItems(one, one, np.array([drawn]), np.array([wanted]), np.array([reward]))
    with pytest.raises(UserError, match="no row"):
        ShownItems(one[:0], one[:0], np.zeros(0), np.zeros(0), np.zeros(0))
