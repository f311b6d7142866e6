"""The summary of a file of votes: their number, the agreement of raters, the strongest items and the winning run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from afresh.core import Score, UserError
from afresh.core.plural import counted
from afresh.core.safe_text import visible
from afresh.engine.alignment.feedback.agreement import VoteTable, alpha, raw_agreement, table_of
from afresh.engine.alignment.feedback.preferences import TIE, Candidate, PreferenceData, Vote
from afresh.engine.alignment.feedback.ranking import Strengths, duels_of, fit
from afresh.engine.alignment.rewards.vote_evidence import VoteEvidence, evidence_of
from afresh.engine.evaluation.estimate import share

LISTED_ITEMS = 3  # of the strongest and of the weakest items
EXCERPT_CHARACTERS = 60  # of an item in a line
Owners = Mapping[Candidate, Collection[tuple[str, str]]]  # the runs (name, weights) that drew a candidate


@dataclass(frozen=True)
class Standing:
    """An item with its strength and the posterior deviation, in logits; 0 is the mean for its prompt and label."""

    item: str
    prompt: str | None
    label: str | None
    strength: float
    deviation: float


@dataclass(frozen=True)
class Match:
    """How often the samples of `one` were preferred to those of `other`. `share` is that of the decided votes, of which
    the latest of each rater on each pair counts; None if all are ties."""

    one: str
    other: str
    wins: int
    losses: int
    ties: int
    share: Score | None

    def line(self) -> str:
        text = f"{self.one} won {self.wins:,} and {self.other} {self.losses:,}, {self.ties:,} ties"
        if self.share is None:
            return f"{text}."
        s = self.share
        return (
            f"{text}: {self.one} is preferred in {s.value:.0%} of the decided votes (95%: {s.low:.0%} to {s.high:.0%})."
        )


@dataclass(frozen=True)
class VoteTally:
    """The summary of a file of votes. `raters`: the number of votes by name, "" for votes without one. `agreement`
    (raw) and `alpha` (Krippendorff's) are None if no two raters judged the same pairs. `evidence`: what a model can
    learn from them."""

    votes: int
    ties: int
    raters: Mapping[str, int]
    agreement: Score | None
    alpha: Score | None
    strongest: Sequence[Standing]
    weakest: Sequence[Standing]
    runs: Sequence[Match]
    evidence: VoteEvidence
    notes: Sequence[str] = field(default=())

    def json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The summary as lines of text."""
        names = ", ".join(f"{visible(name) or 'without a name'} {count:,}" for name, count in self.raters.items())
        out = [
            f"{counted(self.votes, 'vote')}, {self.ties:,} of them ties: {names}." if self.votes else "No votes yet."
        ]
        out += [visible(match.line()) for match in self.runs]
        if self.agreement is not None:
            out.append(f"Two judgements of one pair agree in {interval(self.agreement)}.")
        if self.alpha is not None:
            out.append(f"Krippendorff's alpha: {interval(self.alpha)}; 1 is full agreement, 0 agreement by chance.")
        if self.votes and not self.runs:
            out += self.evidence.lines()
        for name, ends in (("strongest", self.strongest), ("weakest", self.weakest)):
            out += [f"{name} ({s.strength:+.2f} ± {s.deviation:.2f}): {excerpt(s)}" for s in ends]
        return [*out, *map(visible, self.notes)]


def interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return f"{score.value:.2f} (n = {score.n})"
    return f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f}, n = {score.n})"


def excerpt(standing: Standing) -> str:
    """An item on one line, with its label and prompt."""
    request = [f"{k} {v}" for k, v in (("label", standing.label), ("prompt", standing.prompt)) if v]
    words = [" ".join(visible(text).split()) for text in (standing.item, *request)]
    item, *rest = [w if len(w) <= EXCERPT_CHARACTERS else w[: EXCERPT_CHARACTERS - 1] + "…" for w in words]
    return f"{item or '(empty)'}" + (f" ({', '.join(rest)})" if rest else "")


def by_request(votes: Sequence[Vote], candidates: Collection[Candidate]) -> list[Strengths]:
    """The strengths of candidates, fitted separately for each request. As no vote compares two requests, these are the
    blocks of the joint posterior. Votes on other candidates are ignored."""
    known = set(candidates)
    groups: dict[tuple[str | None, str | None], list[Candidate]] = {}
    for c in candidates:
        groups.setdefault((c.prompt, c.label), []).append(c)
    votes_on: dict[tuple[str | None, str | None], list[Vote]] = {}
    for v in votes:
        if known.issuperset(v.pair.candidates):
            votes_on.setdefault((v.prompt, v.label), []).append(v)
    return [fit(duels_of(votes_on.get(key, ()), group)) for key, group in groups.items()]


def standings(votes: Sequence[Vote]) -> list[Standing]:
    """All items with votes, from the strongest on."""
    fitted = by_request(votes, dict.fromkeys(c for v in votes for c in v.pair.candidates))
    rows = [Standing(c.item, c.prompt, c.label, s, d) for f in fitted for c, s, d in f.order()]
    return sorted(rows, key=lambda r: -r.strength)


def matches(votes: Sequence[Vote], owners: Owners) -> list[Match]:
    """Matches between runs, over the votes that compare items of two different runs; an item of several runs is
    ignored."""
    last: dict[Any, tuple[Vote, tuple[str, str], tuple[str, str]]] = {}
    for v in votes:
        one, other = (list(owners.get(Candidate(i, v.prompt, v.label), ())) for i in (v.a, v.b))
        if len(one) == len(other) == 1 and one != other:
            last[v.pair, v.rater] = (v, one[0], other[0])
    states = Counter(name for name, _ in {run for _, *two in last.values() for run in two})
    counts: dict[tuple[str, str], Counter[str]] = {}
    for vote, one_run, other_run in last.values():
        # Two states of one run have the same name, so the hash of the weights is appended.
        a, b = (name if states[name] == 1 else f"{name}@{weights[:6]}" for name, weights in (one_run, other_run))
        winner = {"a": a, "b": b, "tie": ""}[vote.winner]
        counts.setdefault((min(a, b), max(a, b)), Counter())[winner] += 1
    out = []
    for (a, b), count in sorted(counts.items()):
        decided = count[a] + count[b]
        score = share(count[a], decided).score("preferred", "higher", control=0.5) if decided else None
        out.append(Match(a, b, count[a], count[b], count[""], score))
    return out


def tally(found: PreferenceData, owners: Owners) -> VoteTally:
    """The summary of the valid votes of a file; `owners` names the runs that generated its items."""
    votes, notes = list(found.votes), found.summary.lines()[1:]
    table = table_of(votes)
    agreed = [defined(f, table, notes) for f in (raw_agreement, alpha)] if len(table.raters) > 1 else [None, None]
    try:
        ranked = standings(votes)
    except UserError as e:  # more items of one request than can be ranked
        ranked, notes = [], [*notes, str(e)]
    few = min(LISTED_ITEMS, len(ranked) // 2)
    return VoteTally(
        votes=len(votes),
        ties=sum(v.judgement == TIE for v in votes),
        raters=dict(Counter(v.rater or "" for v in votes).most_common()),
        agreement=agreed[0],
        alpha=agreed[1],
        strongest=ranked[:few],
        weakest=ranked[len(ranked) - few :][::-1],
        runs=matches(votes, owners),
        evidence=evidence_of(found),
        notes=notes,
    )


def defined(measure: Callable[[VoteTable], Score], table: VoteTable, notes: list[str]) -> Score | None:
    """A measure of agreement; None if it is not defined, with the reason added to the notes."""
    try:
        return measure(table)
    except UserError as e:
        if str(e) not in notes:
            notes.append(str(e))
        return None
