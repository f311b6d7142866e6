"""Lists of recommendations for users, as a result: in memory, or written as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from afresh.core import UserError
from afresh.core.safe_text import visible
from afresh.core.verb import Line, Remark, Table
from afresh.domains.interactions.feedback import Earned
from afresh.domains.interactions.feedback import evaluate as evaluate_log
from afresh.domains.interactions.lists import FORMS, VOTES, check_form, write_lists
from afresh.domains.interactions.playlist import Playlist, check_unused, playlists
from afresh.domains.interactions.recommend import Ranking, Recommendation, cached_recommender
from afresh.domains.interactions.recommendation_votes import LogVotes, votes_in
from afresh.domains.interactions.users import users_of
from afresh.runs.run import Run
from afresh.storage.folders import check_free


@dataclass(frozen=True)
class RecommendRequest:
    """For whom lists are made and what else is asked of them, beside their `Ranking`: the parameters of `recommend`."""

    users: Sequence[str] = ()
    histories: Sequence[str | Sequence[str]] = ()
    sessions: Sequence[str | Sequence[str]] = ()
    everyone: bool = False
    traits: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None
    wish: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    playlist: bool = False
    evaluate: Path | None = None
    clip: float | None = None
    votes_from: Path | None = None
    out: Path | None = None
    force: bool = False

    @property
    def for_users(self) -> bool:
        """Whether it is said for whom lists are made."""
        return bool(self.users or self.histories or self.sessions or self.everyone or self.playlist)


@dataclass(frozen=True)
class Recommended(Sequence[list[Recommendation]]):
    """A list for each of `users`. `written`: the file of the table that holds them instead, with `rows` rows."""

    users: Sequence[str]
    lists: Sequence[list[Recommendation]]
    seed: int
    notes: tuple[str, ...] = ()
    written: Path | None = None
    rows: int = 0

    def __len__(self) -> int:
        return len(self.lists)

    @overload
    def __getitem__(self, index: int) -> list[Recommendation]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[list[Recommendation]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.lists[index]

    def json(self) -> dict[str, Any]:
        """{lists: [{user, items}], seed, notes}, or {out, rows, users, seed, notes} of a table."""
        about = {"seed": self.seed, "notes": list(self.notes)}
        if self.written is not None:
            return {"out": str(self.written), "rows": self.rows, "users": len(self.users), **about}
        rows = zip(self.users, self.lists, strict=True)
        return {"lists": [{"user": user, "items": [r.json() for r in items]} for user, items in rows], **about}

    def lines(self) -> list[Line]:
        """A table of each list."""
        if self.written is not None:
            return [Remark(f"{self.rows:,} recommendations for {len(self.users):,} users in {self.written}")]
        return [table_of(user, items) for user, items in zip(self.users, self.lists, strict=True)]

    def files(self) -> dict[str, bytes]:
        return {}


def table_of(user: str, items: Sequence[Recommendation]) -> Table:
    """A table of one user's list."""
    reasons = any(r.because for r in items)
    rows = []
    for r in items:
        title = r.title if r.title == r.item else f"{r.title} ({r.item})"
        row = [visible(title), f"{r.probability:.2%}"]
        rows.append([*row, ", ".join(visible(reason.title) for reason in r.because)] if reasons else row)
    columns = [f"for {visible(user)}", "probability", *(["because of"] if reasons else [])]
    return Table(columns, rows, right=[1])


def answer(run: Run, ranking: Ranking, wanted: RecommendRequest) -> Recommended | Earned | LogVotes:
    """What `recommend` returns: lists, what they would have earned, or votes.

    Raises UserError for what does not go together, for an unknown user, and for what cannot be read or written.
    """
    sequence = Playlist(wanted.wish, wanted.share)
    if not wanted.playlist:
        check_unused(sequence)
    if wanted.out is not None:
        check_free(wanted.out, wanted.force)
        check_form(wanted.out, FORMS if wanted.votes_from is None else VOTES)
    recommender = cached_recommender(run)
    if wanted.votes_from is not None:
        if wanted.out is None or wanted.for_users or wanted.evaluate is not None:
            raise UserError("The log of `votes_from` says for whom. Give `out` for the votes, and no users.")
        votes = votes_in(recommender, wanted.votes_from, ranking, wanted.data)
        return votes.write(wanted.out)
    if wanted.evaluate is not None:
        if wanted.for_users or wanted.out is not None:
            raise UserError(
                "The log of `evaluate` says for whom, and no list is written. Leave out the users, `playlist` and "
                "`out`."
            )
        return evaluate_log(recommender, wanted.evaluate, ranking, wanted.data, wanted.clip)
    users = users_of(
        recommender,
        wanted.users,
        wanted.histories,
        wanted.everyone,
        wanted.traits,
        wanted.data,
        wanted.sessions,
    )
    if wanted.playlist:
        lists = playlists(recommender, users.histories, ranking, sequence, users.cond)
    else:
        lists = recommender.lists(users.histories, ranking, users.cond)
    if wanted.out is not None:
        rows = write_lists(wanted.out, users.names, lists)
        return Recommended(users.names, (), ranking.seed, users.notes, wanted.out, rows)
    return Recommended(users.names, list(lists), ranking.seed, users.notes)
