"""A linear reward finds what votes say, is judged on items it never saw, and refuses what says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from afresh.core import UserError
from afresh.engine.alignment.feedback.preferences import FIRST, SECOND, TIE, Vote, Winner
from afresh.engine.alignment.rewards.bradley_terry import (
    Comparisons,
    comparisons_of,
    effective,
    fit,
    groups_of,
    learn,
    log_chances,
    rater_agreement,
    rewards,
    shared,
    splits,
)

SAID: dict[int, Winner] = {FIRST: "a", SECOND: "b", TIE: "tie"}


def apart(features: np.ndarray, judged: np.ndarray) -> list[Vote]:
    """Item 2i against 2i + 1, whose names sort as their rows do."""
    return [Vote(f"{2 * i:05d}", f"{2 * i + 1:05d}", SAID[int(j)]) for i, j in enumerate(judged)]


def drawn(n: int, weights: np.ndarray, log_nu: float | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (2n, D) and judgements (n,) drawn from the model itself."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(2 * n, len(weights)))
    chances = np.exp(log_chances((features[::2] - features[1::2]) @ weights, log_nu))
    return features, (random.random(n)[:, None] > chances.cumsum(1)).sum(1).clip(0, 2)


def test_the_chances_are_davidsons() -> None:
    chances = np.exp(log_chances(np.array([0.0, 1.3]), 0.4))
    assert np.allclose(chances.sum(1), 1)
    assert np.isclose(chances[1, FIRST] / chances[1, SECOND], np.exp(1.3))
    assert np.isclose(chances[1, TIE], np.exp(0.4) * np.sqrt(chances[1, FIRST] * chances[1, SECOND]))
    assert np.allclose(np.exp(log_chances(np.array([0.7]), None)), [[expit(0.7), expit(-0.7), 0]])


@pytest.mark.parametrize("log_nu", [None, -0.5])
def test_planted_weights_are_found_within_their_errors(log_nu: float | None) -> None:
    """4,000 votes under a wide prior: within 4 standard errors, by the curvature of the likelihood."""
    planted = np.array([1.0, -0.5, 0.25, 0.0])
    features, judged = drawn(4000, planted, log_nu, 0)
    a, b = features[::2], features[1::2]
    head = fit(a, b, judged, 100.0, ties=log_nu is not None)
    p = np.exp(log_chances((a - b) @ planted, log_nu))
    worth = (p[:, 0] + p[:, 1] - (p[:, 0] - p[:, 1]) ** 2) / 4  # the variance of the score of a margin
    errors = np.sqrt(np.diag(np.linalg.inv((a - b).T @ ((a - b) * worth[:, None]))))
    assert (np.abs(head.weights - planted) < 4 * errors).all(), (head.weights, errors)
    if log_nu is not None:
        assert head.log_nu is not None and abs(head.log_nu - log_nu) < 0.15


def test_the_prior_draws_weights_to_zero_in_units_of_their_features() -> None:
    features, judged = drawn(300, np.array([1.0, 1.0]), None, 1)
    stretched = features * [1.0, 1000.0]
    for spread in (0.1, 1.0):
        one = fit(features[::2], features[1::2], judged, spread, ties=False)
        other = fit(stretched[::2], stretched[1::2], judged, spread, ties=False)
        assert np.allclose(one.weights, other.weights * [1, 1000], rtol=1e-4)
    narrow, wide = (fit(features[::2], features[1::2], judged, s, ties=False).weights for s in (0.1, 10.0))
    assert np.linalg.norm(narrow) < 0.5 * np.linalg.norm(wide)
    only = fit(features[::2], features[1::2], judged, 1.0, np.array([1.0, 0.0]), ties=False)
    assert only.weights[1] == 0 < only.weights[0]


def test_the_gradient_vanishes_at_the_answer() -> None:
    """The optimum in one dimension by bisection: the prior's pull equals that of the votes."""
    features, judged = drawn(60, np.array([0.8]), None, 2)
    a, b = features[::2], features[1::2]
    found = float(fit(a, b, judged, 0.7, ties=False).weights[0])
    unit = 0.7 / np.concatenate([a, b]).std()
    d, y = (a - b)[:, 0], np.where(judged == FIRST, 1.0, 0.0)
    low, high = -20.0, 20.0
    for _ in range(100):
        w = (low + high) / 2
        low, high = (w, high) if float((y - expit(w * d)) @ d) - w / unit**2 > 0 else (low, w)
    assert abs(found - low) < 1e-4


def test_flipped_votes_cost_little() -> None:
    """5% the wrong way round: the direction stays, and accuracy on clean votes is near the best there is."""
    planted = np.array([2.0, -1.0, 0.5, 0, 0, 0, 0, 0])
    features, judged = drawn(1500, planted, None, 3)
    flip = np.random.default_rng(4).random(1500) < 0.05
    head, held = learn(features, apart(features, np.where(flip, 1 - judged, judged)))
    cosine = head.weights @ planted / np.linalg.norm(head.weights) / np.linalg.norm(planted)
    assert cosine > 0.98
    new, said = drawn(2000, planted, None, 5)
    margin = rewards(head, new[::2]) - rewards(head, new[1::2])
    best = np.mean(((new[::2] - new[1::2]) @ planted > 0) == (said == FIRST))
    assert np.mean((margin > 0) == (said == FIRST)) > best - 0.02
    oracle = np.mean(((features[::2] - features[1::2]) @ planted > 0) == ((judged == FIRST) != flip))
    assert oracle - 0.02 < held.accuracy.value < oracle + 0.01  # of the same votes, flips and all
    assert held.accuracy.low is not None and held.accuracy.high is not None
    assert held.accuracy.low < held.accuracy.value < held.accuracy.high
    assert held.log_loss.value < held.log_loss.control == pytest.approx(np.log(2))
    assert held.calibration_error.value < 0.05


def test_it_does_not_matter_which_item_is_called_a() -> None:
    features, judged = drawn(120, np.array([1.0, -1.0, 0.0]), -1.0, 6)
    votes = apart(features, judged)
    other = {"a": "b", "b": "a", "tie": "tie"}
    turned = [Vote(v.b, v.a, other[v.winner]) if i % 3 else v for i, v in enumerate(votes)]  # type: ignore[arg-type]
    chosen = [Vote(*(v.decided or (v.a, v.b)), "a" if v.decided else "tie") for v in votes]  # the winner first, always
    one, held = learn(features, votes)
    for others in (turned, chosen):
        two, too = learn(features, others)
        assert np.allclose(one.weights, two.weights, atol=1e-5)
        assert held.accuracy == too.accuracy
        assert held.log_loss.value == pytest.approx(too.log_loss.value, abs=1e-6)


def test_random_votes_are_not_foretold() -> None:
    """300 features and 200 votes, where anything can be learnt by heart: held out it is chance, nine times in ten."""
    covered, tight = 0, 0.0
    for seed in range(10):
        random = np.random.default_rng(seed)
        _, held = learn(random.normal(size=(400, 300)), apart(np.zeros(0), random.integers(0, 2, 200)), seed)
        low, high = held.accuracy.low, held.accuracy.high
        assert low is not None and high is not None
        covered += low <= 0.5 <= high
        tight = max(tight, high - low)
        assert held.log_loss.value > 0.69
    assert covered >= 9
    assert tight < 0.15


def test_no_item_and_no_prompt_is_on_both_sides() -> None:
    random = np.random.default_rng(7)
    votes = [
        Vote(f"{p}-{i}", f"{p}-{j}" if random.random() < 0.9 else "shared", "a", prompt=str(p % 37))
        for p in range(60)
        for i, j in ((0, 1), (1, 2), (0, 2))
    ]
    for some, kept in (
        (votes[:90] + votes[93:], "items"),
        ([v for v in votes if v.b != "shared"], "items and prompts"),
    ):
        c, _ = comparisons_of(some)
        found, _, _ = splits(c)
        for rest, here in found:
            seen = {*c.a[rest], *c.b[rest]}
            assert not seen & {*c.a[here], *c.b[here]}
            assert rest.any() and here.any()
            if kept == "items and prompts":
                assert not {*c.prompt[rest]} & {*c.prompt[here]}
    assert np.sum([here for _, here in found], axis=0).tolist() == [1] * len(c.a)


def test_items_compared_all_with_all_are_held_out_too() -> None:
    """40 items, one group: the rewards of unseen items are foretold, and no item is on both sides."""
    random = np.random.default_rng(8)
    features = random.normal(size=(40, 3))
    a, b = random.integers(0, 40, 400), random.integers(0, 40, 400)
    a, b = a[a != b], b[a != b]
    wins = random.random(len(a)) < expit((features[a] - features[b]) @ [2.0, 0, 0])
    votes = [Vote(f"{i:02d}", f"{j:02d}", "a" if w else "b") for i, j, w in zip(a, b, wins, strict=True)]
    c, _ = comparisons_of(votes)
    assert len(np.unique(groups_of(c, False))) == 1
    for rest, here in splits(c)[0]:
        assert not {*c.a[rest], *c.b[rest]} & {*c.a[here], *c.b[here]}
    _, held = learn(features, votes)
    assert held.accuracy.value > 0.7
    assert held.accuracy.n > 200


def test_dependent_votes_are_worth_fewer() -> None:
    hits = np.random.default_rng(9).integers(0, 2, 100).astype(float)
    assert effective(hits, np.arange(100)) > 95
    assert 90 < effective(np.repeat(hits, 3), np.repeat(np.arange(100), 3)) < 101


def test_the_ceiling_is_what_the_best_answer_gets() -> None:
    """All pairs equally clear, p = 0.8: agreement 0.68, and the majority is right 0.8 of the time."""
    random = np.random.default_rng(10)
    votes = [
        Vote(f"x{i}", f"y{i}", "a" if random.random() < 0.8 else "b", rater=str(r)) for i in range(3000) for r in (0, 1)
    ]
    agreement, ceiling = rater_agreement(votes)
    assert agreement is not None and ceiling is not None and ceiling.low is not None and ceiling.high is not None
    assert agreement.value == pytest.approx(0.68, abs=0.03)
    assert ceiling.low < 0.8 < ceiling.high
    assert rater_agreement([v for v in votes if v.rater == "0"]) == (None, None)


def test_several_raters_of_one_pair_count_each() -> None:
    features, judged = drawn(60, np.array([1.0]), None, 11)
    a, b = features[::2], features[1::2]
    thrice = fit(*(np.repeat(x, 3, 0) for x in (a, b)), np.repeat(judged, 3), 1.0, ties=False)
    once = fit(a, b, judged, 1.0, ties=False)
    assert abs(thrice.weights[0]) > 1.02 * abs(once.weights[0])  # the prior weighs less against more votes


def test_blocks_have_equal_parts_of_the_prior() -> None:
    share = shared([np.ones(4), np.array([3.0, 4.0]), np.zeros(0)])
    assert np.allclose([np.square(share[:4]).sum(), np.square(share[4:]).sum()], 0.5)
    assert np.isclose(share[5] / share[4], 4 / 3)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f, v: (f, v[:19]), "at least 20 decided votes, but there are 19"),
        (lambda f, v: (f, [*v[:10], *(Vote(x.a, x.b, "tie") for x in v[10:])]), "there are 10"),
        (lambda f, v: (np.where(np.arange(len(f))[:, None] == 3, np.nan, f), v), r"not finite: \[3\]"),
        (lambda f, v: (f, [Vote(v[0].a, x.b, "a") for x in v]), "The same item won in all"),
        (lambda f, v: (f, [Vote(x.a, v[0].b, "a") for x in v]), "The same item lost in all"),
        (lambda f, v: (np.ones_like(f), v), "have the same features"),
        (lambda f, v: (f, [Vote(v[0].a, x.b, "ab"[i % 2]) for i, x in enumerate(v)]), "on the same few items"),  # type: ignore[arg-type]
    ],
)
def test_votes_that_say_nothing_are_refused(spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    features, judged = drawn(40, np.array([1.0, 1.0]), None, 12)
    with pytest.raises(UserError, match=said):
        some, votes = spoil(features, apart(features, judged))
        learn(some, votes)


def test_a_vote_of_a_thing_with_itself_is_none() -> None:
    c, names = comparisons_of([Vote("x", "x", "a"), Vote("y", "x", "b")])
    assert names == ("x", "y")
    assert isinstance(c, Comparisons) and (c.a.tolist(), c.b.tolist(), c.judged.tolist()) == ([1], [0], [SECOND])
