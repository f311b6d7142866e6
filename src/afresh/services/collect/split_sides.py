"""Which side of the split an item is on, so that what belongs together is never divided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from afresh.core import UserError
from afresh.data.split import share

TRAIN, VALIDATION = "train", "validation"
# What may hold items together, and the columns that say so, the first that is known. Each item is at least in a cluster
# of its own, that of its near duplicates.
COLUMNS = {"group": ("group", "cluster"), "person": ("person", "group", "cluster"), "cluster": ("cluster",), "time": ()}


class SplitSides:
    """The sides of items: by a hash of what they belong to, or the last in time. What the data declares is kept."""

    def __init__(self, by: str, limit: float, border: float | None = None) -> None:
        self.by, self.limit, self.border = by, limit, border
        self.counts = {TRAIN: 0, VALIDATION: 0}
        self.shares: set[float] = set()  # the two lowest and the highest

    def of(self, row: Mapping[str, Any]) -> str:
        """The side of an item whose cluster is known."""
        if row["split"]:
            return str(row["split"])
        if self.border is not None:
            when = moment(row["time"])
            return VALIDATION if when is not None and when > self.border else TRAIN
        return VALIDATION if self._share(row) < self.limit else TRAIN

    def _share(self, row: Mapping[str, Any]) -> float:
        return share(next(row[c] for c in COLUMNS[self.by] if row[c]), "split")

    def count(self, row: Mapping[str, Any]) -> None:
        """An item with its side was kept."""
        self.counts[row["split"]] += 1
        if self.border is None:
            found = sorted({*self.shares, self._share(row)})
            self.shares = {*found[:2], found[-1]}

    def better(self) -> float | None:
        """A limit by which both sides have items, where this one gives none to one; None if this one is right, or if
        there is no such limit."""
        if self.border is not None or not self.limit or len(self.shares) < 2 or all(self.counts.values()):
            return None
        return sorted(self.shares)[1] if not self.counts[VALIDATION] else max(self.shares)


def border(rows: Iterable[Mapping[str, Any]], heldout: float) -> float:
    """The moment after which items are held out, of those that do not declare their side.

    Raises UserError if no item says of when it is, or all are of one time.
    """
    times = sorted(t for row in rows if not row["split"] and (t := moment(row["time"])) is not None)
    last = times[min(len(times) - 1, int((1 - heldout) * len(times)))] if times else 0.0
    earlier = [t for t in times if t < last]
    if not earlier:
        raise UserError(
            f"The items cannot be divided by time: {'all are of one time' if times else 'none says of when it is'}. "
            "Choose another `split_by`: group, person or cluster.",
            "no_times",
        )
    return earlier[-1]


def moment(time: str) -> float | None:
    """Seconds since 1970 of a time in ISO 8601, of which the end may be missing (2020, 2020-05); None if it is none."""
    for text in (time, f"{time}-01", f"{time}-01-01"):
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            continue
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return None
