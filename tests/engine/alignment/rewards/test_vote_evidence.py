"""What votes can teach is told from them alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from afresh.engine.alignment.feedback.preferences import Vote, scan
from afresh.engine.alignment.feedback.ranking import duels_of, fit, left_out
from afresh.engine.alignment.rewards.bradley_terry import MIN_VOTES
from afresh.engine.alignment.rewards.vote_evidence import VoteEvidence, consistency, evidence_of, least_told, votes_for
from afresh.engine.evaluation.estimate import share


def told(folder: Path, rows: Sequence[tuple[str, str, str]]) -> VoteEvidence:
    path = folder / "votes.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b, "winner": w}) + "\n" for a, b, w in rows))
    return evidence_of(scan(path))


def ring(n: int) -> list[tuple[str, str, str]]:
    """Votes for the higher of two neighbours on a ring of random heights."""
    height = np.random.default_rng(0).normal(size=n)
    return [(f"t{i}", f"t{(i + 1) % n}", "a" if height[i] > height[(i + 1) % n] else "b") for i in range(n)]


def asked_again(rows: Sequence[tuple[str, str, str]], alike: int) -> list[tuple[str, str, str]]:
    """The same pairs with their sides exchanged, of which the first `alike` are judged alike."""
    other = {"a": "b", "b": "a"}
    return [(b, a, other[w] if i < alike else w) for i, (a, b, w) in enumerate(rows)]


def test_the_least_share_that_is_told_from_one_half_is_that_of_its_interval() -> None:
    for n in (5, 20, 36, 101):
        k = round(least_told(n) * n)
        assert (share(k, n).low or 0) > 0.5 >= (share(k - 1, n).low or 0)
    assert least_told(votes_for(0.6)) <= 0.6 < least_told(votes_for(0.6) - 1)


def test_more_votes_are_wanted_until_a_usual_preference_is_told(tmp_path: Path) -> None:
    few = told(tmp_path, ring(8))
    assert (few.state, few.needed, few.wanted) == ("impossible", MIN_VOTES - 8, 28)
    assert "12 more votes for one of two are needed, and about 28" in few.outlook()
    some = told(tmp_path, ring(24))
    assert (some.state, some.needed, some.wanted) == ("unclear", 0, 12) and "About 12 more votes" in some.outlook()
    assert told(tmp_path, ring(60)).state == "enough"


def test_ties_teach_nothing_and_the_same_winner_in_all_votes_neither(tmp_path: Path) -> None:
    assert told(tmp_path, [(a, b, "tie") for a, b, _ in ring(40)]).needed == MIN_VOTES
    same = told(tmp_path, [("best", f"t{i}", "a") for i in range(40)])
    assert same.state == "impossible" and "The same item won in all 40 votes" in same.outlook()


def test_pairs_that_were_judged_twice_in_opposite_ways_teach_nothing(tmp_path: Path) -> None:
    rows = ring(24)
    assert told(tmp_path, [*rows, *asked_again(rows, 12)]).state == "guesses"
    clear = told(tmp_path, [*rows, *asked_again(rows, 23)])
    assert clear.agreement is not None and clear.agreement.value == pytest.approx(23 / 24)
    assert clear.ceiling is not None and clear.state == "unclear"


def test_a_line_that_stands_twice_is_not_a_judgement_of_its_own(tmp_path: Path) -> None:
    rows = ring(24)
    assert told(tmp_path, [*rows, *rows]).agreement is None


def test_the_strengths_without_a_vote_are_those_of_the_other_votes() -> None:
    random = np.random.default_rng(1)
    votes = [
        Vote(f"t{a}", f"t{b}", "a" if random.random() < 0.7 else "b")
        for a in range(6) for b in range(a + 1, 6)
    ]  # fmt: skip
    duels = duels_of(votes)
    close = left_out(duels, fit(duels))
    for n in range(len(votes)):
        others = fit(duels_of(votes[:n] + votes[n + 1 :], (c for v in votes for c in v.pair.candidates)))
        strength = dict(zip(others.names, others.mean, strict=True))
        exact = strength[duels.names[duels.first[n]]] - strength[duels.names[duels.second[n]]]
        assert close[n] == pytest.approx(exact, abs=0.05)


def test_votes_fit_each_other_where_they_prefer_the_same_items() -> None:
    """By their order, in which only neighbours are alike without their own vote, or by a coin."""
    random = np.random.default_rng(2)
    pairs = [(a, b) for a in range(12) for b in range(a + 1, 12)]
    ordered = consistency([Vote(f"{a:02d}", f"{b:02d}", "b") for a, b in pairs])
    tossed = consistency([Vote(f"{a:02d}", f"{b:02d}", str(random.choice(["a", "b"]))) for a, b in pairs])  # type: ignore[arg-type]
    assert ordered is not None and ordered.low is not None and ordered.low > 0.7
    assert tossed is not None and tossed.low is not None and tossed.low < 0.5
    assert consistency([Vote("x", "y", "a"), Vote("v", "w", "a")]) is None
