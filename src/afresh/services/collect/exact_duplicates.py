"""Exact duplicates by the ids of all items, at 24 bytes an item."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from afresh.services.collect.spill_file import Scratch

Ids = NDArray[np.uint64]  # (n, 2): the first half of BLAKE3


def ids_of(hexadecimal: Sequence[str]) -> Ids:
    raw = np.frombuffer(bytes.fromhex("".join(h[:32] for h in hexadecimal)), ">u8")
    return raw.reshape(-1, 2).astype(np.uint64)


def read_ids(tables: Sequence[Path]) -> Ids:
    """The ids of all rows."""
    found = [np.zeros((0, 2), np.uint64)]
    for table in tables:
        with pq.ParquetFile(table) as file:
            found += [ids_of(batch.column(0).to_pylist()) for batch in file.iter_batches(65_536, columns=["id"])]
    return np.concatenate(found)


def firsts(ids: Ids) -> NDArray[np.int32]:
    """For each item the number of the first that is equal to it, which may be its own."""
    order = np.lexsort((ids[:, 1], ids[:, 0])).astype(np.int32)
    ordered = ids[order]
    begun = np.ones(len(ids), bool)
    begun[1:] = (ordered[1:] != ordered[:-1]).any(1)
    out = np.empty(len(ids), np.int32)
    out[order] = order[begun][np.cumsum(begun) - 1]
    return out


class Originals:
    """Where the items stand that have copies, for what is said of these."""

    def __init__(self, first: NDArray[np.int32], path: Path) -> None:
        self.numbers = np.unique(first[first != np.arange(len(first))])
        self.places = array("q", [-1]) * len(self.numbers)
        self.scratch = Scratch(path)

    def seen(self, number: int, where: str) -> None:
        """The item of this number stands there."""
        at = int(np.searchsorted(self.numbers, number))
        if at < len(self.numbers) and self.numbers[at] == number:
            self.places[at] = self.scratch.put({"where": where}, np.zeros(0, np.uint8))

    def where(self, number: int) -> str:
        """Where the item of a number stands."""
        return str(self.scratch.get(self.places[int(np.searchsorted(self.numbers, number))])[0]["where"])
