"""Votes from a log of what was shown: what earned more is preferred to what earned less in the same list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from afresh.alignment.feedback.preferences import Vote, Winner
from afresh.alignment.feedback.votes import line_of
from afresh.core import UserError
from afresh.core.plural import counted
from afresh.core.verb import Line, Remark
from afresh.domains.interactions.exposure_log import read_shown
from afresh.domains.interactions.feedback import RankingPolicy
from afresh.domains.interactions.history import History, encode
from afresh.domains.interactions.recommend import Ranking, Recommender, check
from afresh.storage.files import replace_file

MOST = 20.0  # weight of a vote before they are divided by their mean


@dataclass(frozen=True)
class LogVotes:
    """The votes that a log gives, what was done to know them, and the file that they were written to."""

    votes: list[Vote]
    notes: tuple[str, ...]
    written: Path | None = None

    def write(self, file: Path) -> LogVotes:
        """Write the votes, a line each. Raises UserError if that fails."""
        try:
            replace_file(file, b"".join(map(line_of, self.votes)))
        except OSError as error:
            raise UserError(f"Cannot write {file}: {error.strerror or error}. Choose another file.") from None
        return replace(self, written=file)

    def json(self) -> dict[str, Any]:
        """{votes, out, notes}: how many there are, and where."""
        return {
            "votes": len(self.votes),
            "out": None if self.written is None else str(self.written),
            "notes": list(self.notes),
        }

    def lines(self) -> list[Line]:
        return [Remark(f"next: `model.align(preferences={str(self.written)!r})`")]

    def files(self) -> dict[str, bytes]:
        return {}


def votes_in(recommender: Recommender, log: Path, ranking: Ranking, data: Path | None = None) -> LogVotes:
    """A vote for every two items of a list that earned differently, for the history of its user.

    If a click depends on the item and the history alone, an item with the odds o of a click is preferred to one with
    the odds p with probability o / (o + p): a model of Bradley and Terry whose scores are the log-odds of clicks, as
    aligners assume. Places that were not looked at count as not clicked, so the log should be without them.

    The weight of a vote is how much likelier the ranking puts both items in their places than they were drawn, the
    other places being what they were (importance weights, cut at 20): votes count as if this ranking had shown the
    lists. Without `explore` the temperature is 1. Raises UserError if the log cannot be used or tells nothing.
    """
    ranking = replace(ranking, explore=ranking.explore or 1.0)
    check(ranking)
    if ranking.diversity:
        raise UserError("Votes are weighed by the probabilities of `explore`. Leave out `diversity`.")
    shown = read_shown(log)
    policy = RankingPolicy(recommender, shown, ranking, data)
    rows = np.arange(len(shown.items))
    wanted = np.concatenate([policy.wanted(part) for part in np.array_split(rows, -(-len(rows) // policy.together))])
    ratio = np.where(shown.drawn > 0, wanted / np.maximum(shown.drawn, 1e-300), 0.0)
    ids = recommender.catalogue.ids
    votes: list[Vote] = []
    never = cut = 0
    for number, places in enumerate(np.split(rows, np.flatnonzero(np.diff(shown.decision)) + 1)):
        prompt = ",".join(ids[i] for i in policy.histories[number]) or None
        for a, b in combinations(places.tolist(), 2):
            if shown.reward[a] == shown.reward[b] or shown.items[a] == shown.items[b]:
                continue
            weight = float(ratio[a] * ratio[b])
            never += weight == 0
            cut += weight > MOST
            if weight:
                won: Winner = "a" if shown.reward[a] > shown.reward[b] else "b"
                first, second = item_of(shown.items[a]), item_of(shown.items[b])
                rater = f"list {number + 1}"  # so that equal votes of two lists both count
                votes.append(Vote(first, second, won, prompt, rater=rater, weight=min(weight, MOST)))
    if not votes:
        raise UserError(
            f"{log} tells no preference: in no list did one item earn more than another that this ranking shows, too. "
            "Lists of one item tell none; align to a reward that is learnt from them."
        )
    mean = sum(v.weight for v in votes) / len(votes)
    votes = [replace(v, weight=float(f"{v.weight / mean:.4g}")) for v in votes]
    return LogVotes(votes, notes_of(votes, int(shown.decision[-1]) + 1, never, cut))


def item_of(item: str) -> str:
    """An item as votes hold it: its id, or a history in JSON where an id would not be read as one."""
    plain = item == item.strip() and "," not in item and not item.startswith(("{", "[", '"'))
    return item if plain else encode(History("", (item,))).decode()


def notes_of(votes: Sequence[Vote], lists: int, never: int, cut: int) -> tuple[str, ...]:
    weights = np.array([v.weight for v in votes])
    effective = weights.sum() ** 2 / (weights**2).sum()
    out = [
        f"{counted(len(votes), 'vote')} from {counted(lists, 'list')}, which count as {effective:,.0f} of equal weight"
    ]
    if never:
        out.append(f"{counted(never, 'pair')} with an item that this ranking never shows, left out")
    if cut:
        out.append(f"{counted(cut, 'weight')} above {MOST:g} cut to it")
    return tuple(out)
