"""Asking which of two is better: who is asked what, and what the votes say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.core import ItemKind, UserError
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.feedback.preferences import Candidate, Pair, Vote, read_votes, scan
from afresh.engine.alignment.feedback.ranking import Strengths, difference, duels_of, fit
from afresh.engine.alignment.feedback.vote_summary import by_request, matches, standings, tally
from afresh.engine.alignment.feedback.votes import append, withdraw
from afresh.verbs.annotate import MIN_VOTES, PairPlan, Session, all_pairs, votes_in


def plan_of(items: list[str], n: int, free: bool = False, kind: ItemKind = TEXT, seed: int = 0) -> PairPlan:
    """The first n pairs of some items."""
    pairs = [Pair.of(items[i], items[j]) for i, j in list(all_pairs(len(items)))[:n]]
    return PairPlan(kind, tuple(pairs), tuple(Candidate(i) for i in items), free, seed)


ITEMS = [f"text {i}" for i in range(8)]

# --------------------------------------------------------------------------- which pairs


@given(st.integers(1, 30))
def test_every_pair_comes_once_and_all_are_shown_alike(k: int) -> None:
    found = list(all_pairs(k))
    assert len({frozenset(p) for p in found}) == len(found) == k * (k - 1) // 2
    assert all(i != j for i, j in found)
    for n in range(1, len(found) + 1):
        shown = Counter(i for pair in found[:n] for i in pair)
        assert max(shown.values()) - min(shown[i] for i in range(k)) <= 2


def test_all_pairs_are_asked_once_and_each_vote_is_on_the_disk(tmp_path: Path) -> None:
    path, plan = tmp_path / "v.jsonl", plan_of(ITEMS, 8)
    session = Session(plan, path, "r")
    for i in range(8):
        question = session.next()
        assert question is not None and (question.number, question.of) == (i + 1, 8)
        session.vote(question, "a")
        last = read_votes(path).votes[-1]
        assert (last.a, last.b, last.winner, last.rater) == (question.a, question.b, "a", "r")
    assert session.next() is None
    assert {v.pair for v in read_votes(path).votes} == set(plan.pairs)


def test_going_on_asks_what_this_rater_has_not_judged(tmp_path: Path) -> None:
    path, plan = tmp_path / "v.jsonl", plan_of(ITEMS, 8)
    seen = []
    for _ in range(2):
        session = Session(plan, path, "r")
        for _ in range(3):
            question = session.next()
            assert question is not None
            seen.append(question.pair)
            session.vote(question, "tie")
    assert len(set(seen)) == 6
    assert Session(plan, path, "r").next().number == 7  # type: ignore[union-attr]
    assert Session(plan, path, "other").next().number == 1  # type: ignore[union-attr]
    assert Session(plan, path, "r").ties == 6


def test_what_is_skipped_is_asked_another_time(tmp_path: Path) -> None:
    path, plan = tmp_path / "v.jsonl", plan_of(ITEMS, 3)
    session, skipped = Session(plan, path), []
    while (question := session.next()) is not None:
        skipped.append(question.pair)
        session.skip(question)
    assert skipped == list(plan.pairs) and not path.exists()
    assert Session(plan, path).next().pair == plan.pairs[0]  # type: ignore[union-attr]


def test_the_side_is_by_chance_and_the_same_again(tmp_path: Path) -> None:
    plan = plan_of([f"{i:03d}" for i in range(60)], 400)

    def sides(seed: int, rater: str) -> list[bool]:
        session, out = Session(PairPlan("text", plan.pairs, plan.candidates, False, seed), tmp_path / "none", rater), []
        while (question := session.next()) is not None:
            assert {question.a, question.b} == {question.pair.first, question.pair.second}
            out.append(question.a == question.pair.first)
            session.skip(question)
        return out

    first = sides(0, "r")
    assert 150 < sum(first) < 250, "five deviations of a fair coin"
    assert first == sides(0, "r")
    assert first != sides(1, "r") and first != sides(0, "s")


def test_after_ten_votes_the_close_ones_are_asked(tmp_path: Path) -> None:
    """One text always wins and one always loses: that the one beats the other is known, and is asked last."""
    path = tmp_path / "v.jsonl"
    items = ["best", "worst", "m1", "m2", "m3"]
    for middle in items[2:]:
        for k in range(6):
            append(path, Vote("best", middle, "a", rater=f"o{k}"))
            append(path, Vote("worst", middle, "b", rater=f"o{k}"))
    session = Session(plan_of(items, 10, free=True), path, "r", active=True)
    asked = []
    while (question := session.next()) is not None:
        asked.append(question.pair)
        session.skip(question)
    assert len(asked) == len(set(asked)) == 10
    assert asked[-1] == Pair.of("best", "worst")
    assert set(asked[:3]) == {Pair.of("m1", "m2"), Pair.of("m1", "m3"), Pair.of("m2", "m3")}


def test_two_raters_begin_with_the_same_pairs(tmp_path: Path) -> None:
    path, plan = tmp_path / "v.jsonl", plan_of(ITEMS, 20, free=True)
    for rater in ("r", "s"):
        session = Session(plan, path, rater)
        for _ in range(20):
            question = session.next()
            assert question is not None
            session.vote(question, "a")
        assert session.next() is None
    votes = read_votes(path).votes
    first, second = ([v.pair for v in votes if v.rater == r][:MIN_VOTES] for r in ("r", "s"))
    assert first == second == list(plan.pairs[:MIN_VOTES])


# --------------------------------------------------------------------------- refusals


def test_bad_files_and_wishes_teach(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    with pytest.raises(UserError, match="all pairs are fixed"):
        Session(plan_of(ITEMS, 3), path, active=True)
    with pytest.raises(UserError, match="surrogate"):
        Session(plan_of(ITEMS, 3), path, "r\ud800")
    path.write_text("prose\n")
    with pytest.raises(UserError, match="not a file of votes"):
        Session(plan_of(ITEMS, 3), path)
    assert path.read_text() == "prose\n"


def test_texts_and_pictures_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    append(path, Vote("one.png", "other.png", "a"))
    assert len(votes_in(path, TEXT)) == 1, "texts that look like paths"
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(UserError, match="votes on images"):
        votes_in(path, TEXT)
    append(path, Vote("a text", "another", "a"))
    with pytest.raises(UserError, match="texts and images"):
        votes_in(path, IMAGE)


# --------------------------------------------------------------------------- what the votes say


def test_strengths_by_request_are_those_of_all_together() -> None:
    draw = np.random.default_rng(0)
    votes = []
    for _ in range(60):
        prompt = str(draw.integers(3))
        a, b = draw.choice(5, 2, replace=False)
        votes.append(Vote(f"{a}", f"{b}", "a" if draw.random() < 0.7 else "tie", prompt))
    joint = fit(duels_of(votes))
    whole = {c: (s, d) for c, s, d in joint.order()}
    parts = {c: (s, d) for f in by_request(votes, joint.names) for c, s, d in f.order()}
    assert parts.keys() == whole.keys()
    for name, pair in whole.items():
        assert parts[name] == pytest.approx(pair, abs=1e-8)
    (first, *_), *_ = by_request(votes, joint.names)[0].order()
    same = by_request(votes, joint.names)[0]

    def gap(strengths: Strengths) -> np.ndarray:
        """The mean and the variance of the difference between the first and the last candidate of the request."""
        rows = [np.array([strengths.names.index(c)]) for c in (first, same.names[-1])]
        return np.concatenate(difference(strengths, *rows))

    assert gap(same) == pytest.approx(gap(joint))


def test_how_often_a_run_won() -> None:
    one, other, third = ("one", "x1"), ("other", "x2"), ("other", "x3")
    owners = {Candidate(f"o{i}"): {one} for i in range(9)} | {Candidate(f"p{i}"): {other} for i in range(9)}
    owners[Candidate("both")] = {one, other}
    votes = [Vote(f"o{i}", f"p{i}", "a") for i in range(6)]
    votes += [Vote("p6", "o6", "a"), Vote("p7", "o7", "tie"), Vote("both", "o8", "a"), Vote("o1", "o2", "a")]
    votes += [Vote("p0", "o0", "a", rater="r"), Vote("p0", "o0", "b", rater="r")]  # a changed mind counts once
    (match,) = matches(votes, owners)
    assert (match.one, match.other, match.wins, match.losses, match.ties) == ("one", "other", 7, 1, 1)
    assert match.share is not None and match.share.n == 8
    # Wilson's interval of 7 of 8, by hand from its formula.
    assert (match.share.low, match.share.high) == pytest.approx((0.5291, 0.9776), abs=1e-4)
    (ties,) = matches([Vote("o0", "p0", "tie")], owners)
    assert ties.share is None
    again = {**owners, Candidate("p0"): {third}}
    assert {m.other for m in matches(votes[:2], again)} == {"other@x2", "other@x3"}


def test_a_tally(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    for i in range(5):
        for rater in ("r", "s"):
            winner: Any = "tie" if rater == "s" and i == 4 else "a"
            append(path, Vote(f"{i}", f"{i + 1}", winner, label="l", rater=rater))
    append(path, Vote("5", "0", "b"))
    with path.open("ab") as file:
        file.write(b"{damaged\n")
    found = tally(scan(path), {})
    assert (found.votes, found.ties, dict(found.raters)) == (11, 1, {"r": 5, "s": 5, "": 1})
    assert found.agreement is not None and found.agreement.value == pytest.approx(0.8)
    assert found.alpha is not None
    assert found.strongest[0].item == "0" and found.weakest[0].item in ("4", "5")
    assert standings(scan(path).votes)[0].item == "0"
    assert any("damaged" in line for line in found.lines())
    json.dumps(found.json())


def test_a_tally_of_nothing_and_of_one_rater(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.touch()
    assert tally(scan(path), {}).lines()[0] == "No votes yet."
    append(path, Vote("x", "y", "a"))
    found = tally(scan(path), {})
    assert found.agreement is None and found.strongest[0].item == "x" and found.weakest[0].item == "y"
    append(path, Vote("x", "z", "a", rater="r"))
    assert any("No item was judged by two" in n for n in tally(scan(path), {}).notes)


def test_a_withdrawn_vote_leaves_those_of_others(tmp_path: Path) -> None:
    path, one, other = tmp_path / "v.jsonl", Vote("x", "y", "a", rater="r"), Vote("x", "z", "b", rater="s")
    for vote in (one, other, one, other):
        append(path, vote)
    for left in ("rss", "ss"):
        withdraw(path, one)
        assert [json.loads(line)["rater"] for line in path.read_text().splitlines()] == [*left]
    before = path.read_bytes()
    with pytest.raises(UserError, match="no longer in"):
        withdraw(path, one)
    assert path.read_bytes() == before
