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

from afresh.data.files import FileError
from afresh.data.limits import parsing
from afresh.services.collect.record import Record, Rejection, rejected

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
    every = [import_module(f"afresh.services.collect.near.{name}").SEARCH for name in SEARCHES]
    return {kind: search for search in every for kind in search.kinds}


def with_prints(records: Sequence[Record], refused: list[Rejection]) -> list[Record]:
    """The records with their prints. One that has none because it cannot be read is appended to `refused` instead."""
    out = dict(enumerate(records))
    for search in dict.fromkeys(searches().values()):
        at = [i for i, record in out.items() if record.kind in search.kinds]
        for i, found in zip(at, prints([out[i] for i in at], search), strict=True):
            if isinstance(found, FileError):
                refused.append(rejected(out.pop(i), "clean", "near", str(found)))
            else:
                out[i] = replace(out[i], near=found)
    return list(out.values())


def prints(records: Sequence[Record], search: Search) -> list[bytes | FileError]:
    """The print of each record, or why it has none. If it fails for all together, it is made for each by itself."""
    try:
        with parsing("item"):
            return list(search.prints(records))
    except FileError as error:
        return [error] if len(records) == 1 else [one for record in records for one in prints([record], search)]
