"""Fields that are larger than memory: rows of numbers in a file, read batch by batch.

Rows are read at their places and not mapped: pages of a map count as memory of the process until the system takes them
back, so that no bound on it would hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Cond, Examples, Item, Stored, UserError
from afresh.core.space import evenly_spaced

SAMPLE = 1 << 27  # bytes, at 4 a number, that are held of each split: what is not a batch is done with these examples


class RowFile:
    """`count` rows of one shape and type in a file, one after the other. Raises UserError for one of another size."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, count: int) -> None:
        self.path, self.shape, self.dtype, self.count = path, shape, np.dtype(dtype), count
        if not path.is_file() or path.stat().st_size != count * self.row_bytes:
            raise damaged(path)

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, rows: Sequence[int]) -> NDArray[np.generic]:
        """Rows (R, *shape). Raises UserError for a file that has become shorter, or is gone."""
        out = np.empty((len(rows), *self.shape), self.dtype)
        try:
            with self.path.open("rb", buffering=0) as file:
                for place, row in zip(out, rows, strict=True):
                    file.seek(row * self.row_bytes)
                    if file.readinto(place) != self.row_bytes:
                        raise damaged(self.path)
        except OSError as error:
            raise damaged(self.path) from error
        return out

    def value(self, number: int) -> Any:
        return self.decoded(self.read([number])[0])

    def decoded(self, row: NDArray[Any]) -> Any:
        """The value of an item that a row stands for, which may be a view of it."""
        return row


@dataclass(frozen=True)
class StoredRows:
    """Implements `core.space.Rows`: some rows of a file, in an order of their own."""

    file: RowFile
    numbers: Tensor  # (N,) int64 in the file
    cond: Cond

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def sample(self) -> Tensor:
        return evenly_spaced(len(self), max(1, SAMPLE // (4 * math.prod(self.file.shape))))

    def read(self, rows: Tensor) -> tuple[Tensor, Cond]:
        return torch.from_numpy(self.file.read(self.numbers[rows].tolist())), self.cond.select(rows)

    def examples(self, scale: float, shift: float, size: int) -> Examples:
        """The sample in memory, with all of them. `size`: of the raw data, in bytes."""
        x, cond = self.read(self.sample)
        return Examples(x, cond, scale=scale, shift=shift, bytes=size, rows=self)


@dataclass(frozen=True)
class ItemRows:
    """Implements `core.space.Rows`: items whose values are in a file, which are encoded when they are needed."""

    items: Sequence[Item]
    encode: Callable[[Sequence[Item]], Examples]  # as items in memory
    sample: Tensor

    def __len__(self) -> int:
        return len(self.items)

    def read(self, rows: Tensor) -> tuple[Tensor, Cond]:
        found = self.encode([read_item(self.items[n]) for n in rows.tolist()])
        return found.x, found.cond


def in_memory(items: Sequence[Item], examples: Examples) -> tuple[Item, ...]:
    """The items that `examples` were made of, with their values: all, or those of the sample."""
    rows = examples.rows
    if rows is None:
        return tuple(items)
    if not isinstance(rows, StoredRows):
        return tuple(read_item(items[n]) for n in rows.sample.tolist())
    sample = zip(rows.sample.tolist(), examples.x.numpy(), strict=True)
    return tuple(replace(items[n], value=rows.file.decoded(x)) for n, x in sample)


def read_item(item: Item) -> Item:
    if not isinstance(item.value, Stored):
        return item
    images = {k: v.read() if isinstance(v, Stored) else v for k, v in item.images.items()}
    return replace(item, value=item.value.read(), images=images)


def values_of(items: Sequence[Item]) -> Iterator[Any]:
    """The values of items, one of which is in memory at a time if they are in a file."""
    return (read_item(item).value for item in items)


def sample_notes(train: Examples, heldout: Examples, plural: str) -> list[str]:
    """What is different from data in memory."""
    if train.rows is None:
        return []
    parts = ((name, e) for name, e in (("training", train), ("held-out", heldout)) if len(e) < e.count)
    sampled = " and ".join(f"{len(e):,} of {e.count:,} {name}" for name, e in parts)
    return [
        f"the {plural} are learnt from the disk"
        + (f"; what is told of them, near duplicates, copies and measures are of {sampled} {plural}" if sampled else "")
    ]


def damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged. Remove its folder: it is made again from the data.", "damaged", file=str(path)
    )
