"""What votes can teach, told from the votes alone and at once: no item is looked at, and nothing is trained.

A reward is only worth learning if it foretells votes on unseen items better than a coin does, and if that can be told:
the 95% interval of its accuracy must lie above one half. How many votes that takes depends on how well a preference can
be foretold at all. Judgements of one pair that were made twice limit it (`bradley_terry.rater_agreement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from afresh.core import Score, UserError
from afresh.core.plural import counted
from afresh.engine.alignment.feedback.preferences import PreferenceData, Vote
from afresh.engine.alignment.feedback.ranking import MAX_CANDIDATES, Z95, duels_of, fit, left_out
from afresh.engine.alignment.rewards.bradley_terry import (
    MIN_VOTES,
    check_votes,
    comparisons_of,
    rater_agreement,
    usable_votes,
)
from afresh.engine.evaluation.estimate import share

USUAL = 2 / 3  # share of unseen votes that a reward learnt from a few hundred foretells (docs/results/benchmarks.md)
MOST_WANTED = 1000  # votes; a preference that would need more is none that a person has the patience for
TASTE = "what was preferred"  # the title of the progress of learning it
TWICE = 10  # pairs that were judged twice from which on it counts how many were judged alike

State = Literal["impossible", "guesses", "unclear", "enough"]


@dataclass(frozen=True)
class VoteEvidence:
    """What votes can teach. `decided`: votes for one of two. `needed`: more of them without which nothing can be
    learnt. `wanted`: more of them until a usual preference is told from guessing. `agreement`: how often two decided
    judgements of one pair agree, and `ceiling`: the share of votes that no reward can exceed then; None if no pair was
    judged twice. `consistency`: how often a vote is for the item that the other votes make the stronger; None where
    they say nothing. `fault`: why nothing can be learnt, "" otherwise."""

    decided: int
    needed: int
    wanted: int
    agreement: Score | None
    ceiling: Score | None
    consistency: Score | None
    fault: str

    @property
    def state(self) -> State:
        """`guesses`: by the pairs that were judged twice, the best reward could not be told from guessing. `unclear`:
        that takes more votes, or those pairs may have been judged alike by chance."""
        if self.fault:
            return "impossible"
        twice = self.agreement is not None and self.agreement.n >= TWICE
        if twice and self.ceiling is not None and self.ceiling.value < least_told(self.decided):
            return "guesses"
        return "unclear" if self.wanted or (twice and self.by_chance) else "enough"

    @property
    def by_chance(self) -> bool:
        """Whether pairs that were judged twice may have been judged alike by chance."""
        return self.agreement is not None and self.agreement.low is not None and self.agreement.low <= 0.5

    def lines(self) -> list[str]:
        """The evidence for a person, one sentence each."""
        out = [self.outlook()]
        if self.agreement is not None:
            out.append(
                f"Of the pairs that were judged twice, {percent(self.agreement)} were judged alike; 50% is chance."
            )
        if self.consistency is not None:
            out.append(
                f"The votes fit each other in {percent(self.consistency)}: so many are for the item that the other "
                "votes make the stronger; 50% is chance."
            )
        return out

    def outlook(self) -> str:
        """Whether something can be learnt, in a sentence or two."""
        if self.needed:
            return (
                f"There is too little to learn from yet: {counted(self.needed, 'more vote')} for one of two "
                f"{'is' if self.needed == 1 else 'are'} needed, and about {self.wanted:,} are advisable."
            )
        if self.fault:
            return self.fault
        if self.state == "guesses":
            return (
                "These votes are no better than guessing: pairs that were judged twice were too often judged in "
                "opposite ways. Decide what is asked for, and vote on pairs that clearly differ in it."
            )
        if self.wanted:
            return (
                f"{self.decided:,} decided votes teach a preference only if it is very clear, so that "
                f"{least_told(self.decided):.0%} of unseen votes can be foretold. "
                f"About {counted(self.wanted, 'more vote')} would do for a usual one ({self.expected:.0%})."
            )
        return f"{self.decided:,} decided votes are enough to learn a usual preference ({self.expected:.0%} foretold)."

    @property
    def expected(self) -> float:
        """The share of unseen votes that a reward may foretell."""
        return expected_of(self.ceiling)


def evidence_of(data: PreferenceData) -> VoteEvidence:
    """What the votes of a file can teach."""
    comparisons, _ = comparisons_of(data.votes)
    decided = int(comparisons.decided.sum())
    agreement, ceiling = rater_agreement(data.votes, data.judged_again)
    expected = expected_of(ceiling)
    fault = ""
    try:
        check_votes(comparisons)
        usable_votes(comparisons)
    except UserError as error:
        fault = str(error)
    wanted = max(0, max(MIN_VOTES, votes_for(expected)) - decided)
    return VoteEvidence(
        decided, max(0, MIN_VOTES - decided), wanted, agreement, ceiling, consistency(data.votes), fault
    )


def expected_of(ceiling: Score | None) -> float:
    """The share of unseen votes that a reward may foretell: a usual one, unless pairs that were judged twice rule it
    out."""
    return USUAL if ceiling is None or ceiling.high is None else min(USUAL, ceiling.high)


def least_told(n: int) -> float:
    """The least share of n unseen votes whose 95% interval (Wilson 1927) lies above one half: further from it than Z95
    deviations of a fair coin. Above 1 if n are too few for any share."""
    return (int(n / 2 + Z95 * n**0.5 / 2) + 1) / max(1, n)


def votes_for(accuracy: float) -> int:
    """The least number of votes with which foretelling this share of them is told from guessing, MOST_WANTED at
    most."""
    return next((n for n in range(1, MOST_WANTED) if least_told(n) <= accuracy), MOST_WANTED)


def consistency(votes: Sequence[Vote]) -> Score | None:
    """How often a decided vote is for the item that all other votes make the stronger (`ranking.left_out`), over the
    votes about which they say something; None if they say nothing, or if there are more items than can be ranked."""
    groups: dict[tuple[str | None, str | None], list[Vote]] = {}
    for vote in votes:
        groups.setdefault((vote.prompt, vote.label), []).append(vote)
    hits = n = 0
    for group in groups.values():
        duels = duels_of(group)
        if len(duels.names) > MAX_CANDIDATES:
            return None
        margins = left_out(duels, fit(duels))
        said = (abs(margins) > 1e-9) & (duels.score != 0.5)
        n += int(said.sum())
        hits += int(((margins > 0) == (duels.score == 1))[said].sum())
    return share(hits, n).score("consistency", "higher", control=0.5) if n else None


def percent(score: Score) -> str:
    ends = "" if score.low is None or score.high is None else f" (95%: {score.low:.0%} to {score.high:.0%})"
    return f"{score.value:.0%} of {score.n:,}{ends}"
