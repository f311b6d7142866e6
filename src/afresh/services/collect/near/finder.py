"""Near duplicates of items among those before them that were kept, in one walk through all items.

Keys that they have in common lie on disk, one file for each place, and one of them is sorted at a time, so that memory
is a few bytes an item.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.services.collect.near import Array, Search, searches
from afresh.services.collect.spill_file import Head, Scratch

CROWD = 32  # items of a bucket that later ones are compared with, and candidates of one item
CROWDED = 4_000_000  # items in buckets beyond the first of each, of which no more are remembered


class Buckets:
    """In the order of the items: `add` the keys of all, then `sort`, then for each stretch of items `advance`, ask for
    the `candidates` of each, and `keep` those that later items are compared with."""

    def __init__(self, folder: Path, places: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = [folder / f"{k:02d}" for k in range(places)]
        for path in self.paths:
            path.write_bytes(b"")
        self.count = self.position = 0
        self.firsts: list[NDArray[np.int32]] = []  # of each bucket of each place, the first that was kept
        self.others: dict[int, array[int]] = {}
        self.remembered = 0
        self.now = np.zeros((0, places), np.int32)

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Keys (n, places) of the next n items; 0 is none."""
        for path, column in zip(self.paths, keys.T, strict=True):
            with path.open("ab") as file:
                file.write(np.ascontiguousarray(column).tobytes())
        self.count += len(keys)

    def sort(self) -> None:
        """Put in place of the keys the numbers of the buckets of at least two items."""
        for path in self.paths:
            keys = np.fromfile(path, np.uint64)
            order = np.argsort(keys, kind="stable").astype(np.int32)
            keys = keys[order]
            equal = np.zeros(len(keys) + 1, bool)
            equal[1:-1] = (keys[1:] == keys[:-1]) & (keys[1:] != 0)
            several = equal[1:] | equal[:-1]
            begun = several & ~equal[:-1]
            numbers = np.full(len(keys), -1, np.int32)
            numbers[order[several]] = (np.cumsum(begun, dtype=np.int32) - 1)[several]
            numbers.tofile(path)
            self.firsts.append(np.full(int(begun.sum()), -1, np.int32))

    def advance(self, count: int) -> NDArray[np.bool_]:
        """Go on to the next `count` items; which of them have a key in common with any other."""
        columns = [np.fromfile(path, np.int32, count, offset=4 * self.position) for path in self.paths]
        self.position += count
        self.now = np.stack(columns, 1)
        found: NDArray[np.bool_] = np.any(self.now >= 0, axis=1)
        return found

    def candidates(self, row: int, detail: Array) -> Sequence[int]:
        """Those that were kept and have a key in common with an item, the earliest first. If there are many, those that
        have most in common."""
        found: list[int] = []
        for place, bucket in enumerate(self.now[row].tolist()):
            if bucket >= 0 and (first := int(self.firsts[place][bucket])) >= 0:
                found.append(first)
                found += self.others.get(place << 32 | bucket, ())
        if len(found) < 2:
            return found
        numbers, times = np.unique(np.array(found), return_counts=True)
        chosen: list[int] = np.sort(numbers[np.argsort(-times, kind="stable")[:CROWD]]).tolist()
        return chosen

    def keep(self, row: int, detail: Array, number: int) -> None:
        """Compare later items with this one, by the number that is given back as a candidate."""
        for place, bucket in enumerate(self.now[row].tolist()):
            if bucket < 0:
                continue
            if self.firsts[place][bucket] < 0:
                self.firsts[place][bucket] = number
            elif self.remembered < CROWDED:
                others = self.others.setdefault(place << 32 | bucket, array("i"))
                if len(others) < CROWD - 1:
                    others.append(number)
                    self.remembered += 1


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
        for number in self.walks[search].candidates(place, detail):
            head, other = self.scratch.get(number)
            similarity = search.similarity(detail, other)
            if similarity:
                yield head, similarity

    def keep(self, row: int, head: Head) -> None:
        """Compare later rows with this one, of which `head` is told."""
        known = self.now[row]
        if known is not None:
            search, place, detail = known
            self.walks[search].keep(place, detail, self.scratch.put(head, detail))


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

    def candidates(self, row: int, detail: Array) -> Sequence[int]:
        """The numbers of all that are near enough to be compared, the earliest first."""
        if not self.numbers:
            return []
        distances = np.square(self.points[: len(self.numbers)] - self._point(detail)).sum(1)
        return [self.numbers[i] for i in np.flatnonzero(distances <= self.search.radius**2)]

    def keep(self, row: int, detail: Array, number: int) -> None:
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
