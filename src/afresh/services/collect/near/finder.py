"""Near duplicates of items among those before them that were kept, in one walk through all items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afresh.services.collect.near import Array, Search, searches
from afresh.services.collect.near.buckets import Buckets
from afresh.services.collect.spill_file import Head, Scratch


class Finder:
    """First `add` the kinds and prints of all items and `sort`; then, in the same order, for each stretch of rows
    `advance`, ask for the `matches` of each, and `keep` those that later items are compared with."""

    def __init__(self, folder: Path) -> None:
        self.scratch = Scratch(folder / "kept")
        self.walks = {
            search: Buckets(folder / search.kinds[0], len(search.keys([b""])[0])) if search.keys else Points(search)
            for search in dict.fromkeys(searches().values())
        }
        self.now: list[tuple[Search, int, Array] | None] = []

    def add(self, kinds: Sequence[str], prints: Sequence[bytes]) -> None:
        for search, walk in self.walks.items():
            some = [p for kind, p in zip(kinds, prints, strict=True) if kind in search.kinds]
            if some and search.keys and isinstance(walk, Buckets):
                walk.add(search.keys(some))

    def sort(self) -> None:
        for walk in self.walks.values():
            walk.sort()

    def advance(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Go on to the next rows, each with `kind`, `text` and its print `near`."""
        self.now = [None] * len(rows)
        for search, walk in self.walks.items():
            at = [i for i, row in enumerate(rows) if row["kind"] in search.kinds]
            asked = walk.advance(len(at)) if at else ()
            known = [(k, i) for k, i in enumerate(at) if asked[k] and rows[i]["near"]]
            details = search.details([rows[i] for _, i in known]) if known else []
            for (k, i), detail in zip(known, details, strict=True):
                self.now[i] = search, k, detail

    def matches(self, row: int) -> Iterator[tuple[Head, float]]:
        """What was kept and is nearly equal to a row, with the similarity; the earliest first."""
        known = self.now[row]
        if known is None:
            return
        search, place, detail = known
        walk = self.walks[search]
        for number in walk.candidates(place) if isinstance(walk, Buckets) else walk.near(detail):
            head, other = self.scratch.get(number)
            similarity = search.similarity(detail, other)
            if similarity:
                yield head, similarity

    def keep(self, row: int, head: Head) -> None:
        """Compare later rows with this one, of which `head` is told."""
        known = self.now[row]
        if known is not None:
            search, place, detail = known
            walk = self.walks[search]
            number = self.scratch.put(head, detail)
            if isinstance(walk, Buckets):
                walk.keep(place, number)
            else:
                walk.keep(detail, number)


class Points:
    """What near duplicates are found by where they have no keys: the distance of a few numbers, from all of them."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.numbers: list[int] = []
        self.points: Array = np.zeros((0, 0), np.float32)

    def sort(self) -> None:
        """There is nothing to sort."""

    def advance(self, count: int) -> Array:
        return np.ones(count, bool)

    def near(self, detail: Array) -> list[int]:
        """The numbers of all that are near enough to be compared, the earliest first."""
        if not self.numbers:
            return []
        distances = np.square(self.points[: len(self.numbers)] - self._point(detail)).sum(1)
        return [self.numbers[i] for i in np.flatnonzero(distances <= self.search.radius**2)]

    def keep(self, detail: Array, number: int) -> None:
        point = self._point(detail)
        if len(self.numbers) == len(self.points):  # room for twice as many
            more = np.zeros((max(64, len(self.points)), len(point)), np.float32)
            self.points = np.concatenate([self.points.reshape(-1, len(point)), more])
        self.points[len(self.numbers)] = point
        self.numbers.append(number)

    def _point(self, detail: Array) -> Array:
        assert self.search.coarse is not None
        point: Array = self.search.coarse([detail])[0]
        return point
