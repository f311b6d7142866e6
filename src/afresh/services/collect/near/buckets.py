"""Items that have a key in common. Keys lie on disk, one file for each place, and one of them is sorted at a time, so
that memory is a few bytes an item."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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

    def candidates(self, row: int) -> Sequence[int]:
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

    def keep(self, row: int, number: int) -> None:
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
