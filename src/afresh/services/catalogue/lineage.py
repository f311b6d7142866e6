"""Lineage of listings: who is whose parent, that it is no circle, and how a payment is shared along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from afresh.core import UserError
from afresh.core.money import apportioned
from afresh.services.catalogue.listing import WHOLE, Listing


class Lineage:
    """The listings of a catalogue by id and by the SHA-256 of their bundles."""

    def __init__(self, listings: Sequence[Listing]) -> None:
        self.by_id: Mapping[str, Listing] = {x.id: x for x in listings}
        self.by_sha256: Mapping[str, Listing] = {x.bundle.sha256: x for x in reversed(listings)}

    def named(self, of: str) -> Listing | None:
        """The listing that a parent names; None if it is not in this catalogue."""
        return self.by_id.get(of) or self.by_sha256.get(of)

    def shares(self, listing: Listing, amount: int) -> dict[str, int]:
        """Who is due how much of an amount in minor units: by the id of a listing, or the SHA-256 of a parent that is
        not in the catalogue. A parent's part is shared with its own parents in turn. The parts add up to the amount."""
        parts = apportioned(
            amount, [WHOLE - sum(p.share for p in listing.parents), *(p.share for p in listing.parents)]
        )
        due = {listing.id: parts[0]}
        for parent, part in zip(listing.parents, parts[1:], strict=True):
            known = self.named(parent.of)
            for of, owed in ({parent.of: part} if known is None else self.shares(known, part)).items():
                due[of] = due.get(of, 0) + owed
        return {of: owed for of, owed in due.items() if owed}


def check_lineage(listings: Sequence[Listing]) -> None:
    """Raises UserError if a listing descends from itself."""
    lineage = Lineage(listings)
    sorter = TopologicalSorter(
        {x.id: [known.id for p in x.parents if (known := lineage.named(p.of)) is not None] for x in listings}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " <- ".join(error.args[1])
        raise UserError(
            f"The lineage is a circle, so that no share can be computed: {circle}. Leave one of these parents out.",
            "circular_lineage",
        ) from None
