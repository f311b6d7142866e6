"""Votes from a log of what was shown: what earned more is preferred to what earned less in the same list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.core.verb import Line, Remark, ShownResult
from afresh.data.storage.files import replace_file
from afresh.domains.interactions.exposure_log import read_shown
from afresh.domains.interactions.feedback import histories_of
from afresh.domains.interactions.history import History, encode
from afresh.domains.interactions.recommend import Recommender
from afresh.engine.alignment.feedback.preferences import Vote, Winner
from afresh.engine.alignment.feedback.votes import line_of


@dataclass(frozen=True)
class LogVotes(ShownResult):
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


def votes_in(recommender: Recommender, log: Path, data: Path | None = None) -> LogVotes:
    """A vote for every two items of a list that earned differently, for the history of its user.

    If a click depends on the item and the history alone, an item with the odds o of a click is preferred to one with
    the odds p with probability o / (o + p): a model of Bradley and Terry whose scores are the log-odds of clicks, as
    aligners assume. Places that were not looked at count as not clicked, so the log should be without them. Items that
    the run has not learnt are left out. `data`: the log of events that users' histories are read from. Raises UserError
    if the log cannot be used or tells nothing.
    """
    shown = read_shown(log)
    histories, _ = histories_of(recommender, shown, data)
    catalogue = recommender.catalogue
    learnt = {name for name, count in zip(catalogue.ids, catalogue.counts.tolist(), strict=True) if count}
    votes: list[Vote] = []
    unknown, rows = 0, np.arange(len(shown.items))
    for number, places in enumerate(np.split(rows, np.flatnonzero(np.diff(shown.decision)) + 1)):
        prompt = ",".join(catalogue.ids[i] for i in histories[number]) or None
        for a, b in combinations(places.tolist(), 2):
            if shown.reward[a] == shown.reward[b] or shown.items[a] == shown.items[b]:
                continue
            if not {shown.items[a], shown.items[b]} <= learnt:
                unknown += 1
                continue
            won: Winner = "a" if shown.reward[a] > shown.reward[b] else "b"
            rater = f"list {number + 1}"  # so that equal votes of two lists both count
            votes.append(Vote(item_of(shown.items[a]), item_of(shown.items[b]), won, prompt, rater=rater))
    if not votes:
        raise UserError(
            f"{log} tells no preference: in no list did one item that the run has learnt earn more than another. Lists "
            "of one item tell none; align to a reward that is learnt from them."
        )
    notes = [f"{counted(len(votes), 'vote')} from {counted(len(histories), 'list')}"]
    if unknown:
        notes.append(f"{counted(unknown, 'pair')} with an item that the run has not learnt, left out")
    return LogVotes(votes, tuple(notes))


def item_of(item: str) -> str:
    """An item as votes hold it: its id, or a history in JSON where an id would not be read as one."""
    plain = item == item.strip() and "," not in item and not item.startswith(("{", "[", '"'))
    return item if plain else encode(History("", (item,))).decode()
