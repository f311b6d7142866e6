"""What near duplicates are found by, for each kind of items: a print that is made of an item alone, while it is
cleaned, what prints of near duplicates have in common, and a comparison of two items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.collect.record import Record

SEARCHES = ("texts", "images", "sounds")  # files in this folder, each with a SEARCH

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Search:
    """How near duplicates are found among items of some kinds.

    prints: of each record, a few bytes that stay with it; none if it cannot have near duplicates. details: of rows with
    their `text` and their print `near`, what is compared. similarity: of two details, or 0 if they are not near
    duplicates.

    keys: of prints, numbers (n, K) of which near duplicates have at least one in common, in its place; 0 is none.
    coarse: instead of keys, details as points (n, D) that are at most `radius` apart if they are near duplicates.
    """

    kinds: tuple[str, ...]
    prints: Callable[[Sequence[Record]], list[bytes]]
    details: Callable[[Sequence[Mapping[str, Any]]], Sequence[Array]]
    similarity: Callable[[Array, Array], float]
    keys: Callable[[Sequence[bytes]], NDArray[np.uint64]] | None = None
    coarse: Callable[[Sequence[Array]], NDArray[np.float32]] | None = None
    radius: float = 0.0


@cache
def searches() -> dict[str, Search]:
    """The search of each kind; a kind without one has exact duplicates only."""
    every = [import_module(f"afresh.collect.near.{name}").SEARCH for name in SEARCHES]
    return {kind: search for search in every for kind in search.kinds}


def with_prints(records: Sequence[Record]) -> list[Record]:
    """The records with their prints."""
    out = list(records)
    for search in dict.fromkeys(searches().values()):
        at = [i for i, record in enumerate(out) if record.kind in search.kinds]
        for i, found in zip(at, search.prints([out[i] for i in at]), strict=True):
            out[i] = replace(out[i], near=found)
    return out
