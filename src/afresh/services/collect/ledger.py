"""The ledger of a data set: how much of it is under which licence, and of whom there are likenesses and voices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afresh.services.collect.record import UNKNOWN

LIKENESS = frozenset({"image", "audio", "conversation"})  # kinds in which a person is seen, heard or talks


@dataclass(frozen=True)
class Share:
    """What is under one licence."""

    licence: str
    items: int
    bytes: int


@dataclass(frozen=True)
class Ledger:
    """The shares of licences, the largest first, and the number of likenesses, voices and conversations of persons of
    whom no consent is known."""

    shares: tuple[Share, ...]
    without_consent: int

    @property
    def unknown(self) -> Share | None:
        """What is under no known licence."""
        return next((s for s in self.shares if s.licence == UNKNOWN), None)

    def __str__(self) -> str:
        return percentages({s.licence: s.bytes for s in self.shares})


def ledger(path: Path, kinds: Collection[str] | None = None) -> Ledger:
    """The ledger of the items of a data set, or of those of some kinds."""
    from afresh.data.collected import rows  # only here: pyarrow would delay the start of a server

    return summed(r for r in rows(path, COLUMNS) if kinds is None or r["kind"] in kinds)


COLUMNS = ["kind", "licence", "bytes", "person", "consent"]


def summed(items: Iterable[Mapping[str, Any]]) -> Ledger:
    """The ledger of rows, which have `COLUMNS`."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    without = 0
    for row in items:
        licence = row["licence"] or UNKNOWN
        counts[licence] += 1
        sizes[licence] += row["bytes"]
        without += row["kind"] in LIKENESS and bool(row["person"]) and not row["consent"]
    order = sorted(counts, key=lambda name: (-sizes[name], name))
    return Ledger(tuple(Share(name, counts[name], sizes[name]) for name in order), without)


def percentages(amounts: Mapping[str, int]) -> str:
    """Amounts as whole percentages that add up to 100, as "72% CC0-1.0, 20% MIT, 8% unknown", the largest first. What
    is less than half a percent is written as such."""
    whole = sum(amounts.values())
    if not whole:
        return "nothing"
    order: Sequence[str] = sorted(amounts, key=lambda name: (-amounts[name], name))
    floors = {name: 100 * amounts[name] // whole for name in order}
    rest = 100 - sum(floors.values())
    for name in sorted(order, key=lambda name: -(100 * amounts[name] % whole))[:rest]:  # the largest remainders
        floors[name] += 1
    return ", ".join(f"{floors[n] or 'under 1'}% {n}" for n in order)
