"""Agreement beyond chance, against published examples and enumeration."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.engine.alignment.feedback.agreement import VoteTable, alpha, raw_agreement, table_of
from afresh.engine.alignment.feedback.preferences import Vote

MISSING = -1


def table(*raters: str, sides: bool = False) -> VoteTable:
    """One string a rater, one sign an item; a dot where there is no judgement."""
    signs = sorted({c for r in raters for c in r if c != "."})
    values = [[signs.index(c) if c != "." else MISSING for c in r] for r in raters]
    return VoteTable(np.array(values).T, sides=sides)


def drawn(n: int, raters: int, seed: int, copied: float = 0.5, missing: float = 0.2) -> VoteTable:
    """Three categories; each judgement is the item's own with probability `copied`, else any."""
    g = np.random.default_rng(seed)
    own = np.repeat(g.integers(0, 3, (n, 1)), raters, 1)
    values = np.where(g.random((n, raters)) < copied, own, g.integers(0, 3, (n, raters)))
    return VoteTable(np.where(g.random((n, raters)) < missing, MISSING, values))


# --------------------------------------------------------------------------- published values


MEG, OWEN = "0100000010", "1110010000"
BEN, GERRY = "aabbdcccedda", "babbbccceddd"
FOUR = ("123321412...", "1233224125.3", ".33323422 51.".replace(" ", ""), "12332441251.")


@pytest.mark.parametrize(
    ("raters", "published"),
    [((MEG, OWEN), 0.095), ((BEN, GERRY), 0.692), (FOUR, 0.743)],
    ids=["A: two raters, two categories", "B: two raters", "C: four raters, missing judgements"],
)
def test_krippendorff_2011(raters: tuple[str, ...], published: float) -> None:
    assert alpha(table(*raters)).value == pytest.approx(published, abs=5e-4)


def test_an_item_with_one_judgement_says_nothing() -> None:
    """Of the four raters' twelve items, the last has one judgement: 11 are left, with 40 judgements."""
    assert alpha(table(*FOUR)).n == 11
    assert alpha(table(*[r[:-1] for r in FOUR])).value == pytest.approx(alpha(table(*FOUR)).value, abs=1e-12)


# --------------------------------------------------------------------------- what they mean


def test_expected_disagreement_is_that_of_judgements_dealt_at_random() -> None:
    """Over all ways to deal the six judgements to three items, raw agreement is 1 - D_e on average."""
    values = [0, 0, 1, 2, 2, 2]
    dealt = [np.mean([p[i] == p[i + 1] for i in (0, 2, 4)]) for p in permutations(values)]
    t = VoteTable(np.array(values).reshape(3, 2))  # 00 12 22
    expected = float(np.mean(dealt))
    assert alpha(t).value == pytest.approx((2 / 3 - expected) / (1 - expected), abs=1e-12)


def test_perfect_agreement_is_one_and_none_but_chance_is_nought() -> None:
    same = drawn(50, 3, 0, copied=1.0)
    for score in (raw_agreement(same), alpha(same)):
        assert score.value == pytest.approx(1) and score.low == pytest.approx(1)
    chance = drawn(20_000, 2, 1, copied=0.0)
    assert abs(alpha(chance).value) < 0.02
    assert raw_agreement(chance).value == pytest.approx(1 / 3, abs=0.02)


def test_half_copied_judgements_agree_a_quarter_beyond_chance() -> None:
    """Both copy the item with probability 1/4, and else agree by chance: that is what alpha is to find."""
    t = drawn(20_000, 2, 2)
    assert alpha(t).value == pytest.approx(0.25, abs=0.02)


def test_raters_and_categories_have_no_order() -> None:
    t = drawn(60, 3, 3)
    names = np.array([2, 0, 1, MISSING])  # of a category; the last is for what is missing
    other = VoteTable(names[t.values][:, [1, 2, 0]])
    for f in (raw_agreement, alpha):
        assert f(other).value == pytest.approx(f(t).value, abs=1e-12)


def test_it_does_not_matter_which_side_of_a_pair_is_first() -> None:
    g = np.random.default_rng(4)
    t = drawn(40, 2, 5, missing=0.1)
    turned = np.where(g.random((40, 1)) < 0.5, np.array([1, 0, 2, MISSING])[t.values], t.values)
    for f in (raw_agreement, alpha):
        a, b = f(VoteTable(t.values, sides=True)), f(VoteTable(turned, sides=True))
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)


# --------------------------------------------------------------------------- intervals


def test_the_interval_is_that_of_drawing_items_again() -> None:
    t = drawn(80, 2, 6, missing=0.0)
    g = np.random.default_rng(7)
    plain = [(t.values[:, 0] == t.values[:, 1])[g.integers(0, 80, 80)].mean() for _ in range(4000)]
    found, (low, high) = raw_agreement(t), np.quantile(plain, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.025) and found.high == pytest.approx(high, abs=0.025)


def test_intervals_narrow_with_items_and_follow_the_seed() -> None:
    small, large = alpha(drawn(100, 3, 8)), alpha(drawn(1600, 3, 8))
    assert small.low is not None and small.high is not None and large.low is not None and large.high is not None
    assert (small.high - small.low) / (large.high - large.low) == pytest.approx(4, rel=0.25)
    assert alpha(drawn(100, 3, 8)) == small
    assert alpha(drawn(100, 3, 8), seed=1) != small


def test_one_item_has_no_interval() -> None:
    score = raw_agreement(table("a", "b"))
    assert (score.value, score.low, score.high, score.n) == (0, None, None, 1)


@pytest.mark.parametrize("f", [raw_agreement, alpha])
def test_nothing_judged_twice_is_refused(f: object) -> None:
    with pytest.raises(UserError, match="No item was judged by two"):
        f(table("ab..", "..ab"))  # type: ignore[operator]


def test_what_chance_alone_explains_is_refused() -> None:
    same = table("aaaa", "aaaa")
    assert raw_agreement(same).value == 1
    with pytest.raises(UserError, match="All judgements are the same"):
        alpha(same)


# --------------------------------------------------------------------------- votes


def vote(a: str, b: str, winner: str, rater: str | None) -> Vote:
    return Vote(a, b, winner, rater=rater)  # type: ignore[arg-type]


def test_votes_as_a_table() -> None:
    votes = [
        vote("x", "y", "a", "r"),
        vote("y", "x", "b", "s"),
        vote("v", "u", "tie", "s"),
        vote("u", "v", "b", None),
        vote("x", "y", "b", "s"),
    ]
    t = table_of(votes)
    assert t.raters == ("", "r", "s") and t.sides
    assert t.values.tolist() == [[-1, 0, 1], [1, -1, 2]]  # s changed their mind about x and y
