"""Lists of recommendations for users, as a result: in memory, or written as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from afresh.core.safe_text import visible
from afresh.core.verb import Line, Remark, Table
from afresh.domains.interactions.recommend import Recommendation


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
