"""Sparse tables from items to items, which score what is next from the items of a history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from afresh.core import UserError
from afresh.data.storage.files import write_file
from afresh.data.storage.tensor_file import check_tensor, read_tensors


@dataclass(frozen=True, eq=False)
class ItemTable:
    """For each of V items, the numbers of up to K other items (V, K) int32, the strongest first, and their weights
    (V, K) float32, 0 beyond the last."""

    index: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def matrix(self) -> Any:
        """The table as a sparse matrix (V, V)."""
        from scipy import sparse

        size, k = self.index.shape
        ends = np.arange(0, size * k + 1, k)
        values = (self.weight.numpy().ravel(), self.index.numpy().ravel(), ends)
        return sparse.csr_matrix(values, shape=(size, size))

    def scores(self, histories: Sequence[Sequence[int]], fade: float = 1.0, reach: int | None = None) -> Any:
        """A sparse matrix (B, V) float32: the sum of the rows of the items of each history, the weight of which fades
        with each later item; with `reach`, of its last items only."""
        return faded(histories, len(self), fade, reach) @ self.matrix

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, save({"index": self.index, "weight": self.weight}))


def faded(histories: Sequence[Sequence[int]], size: int, fade: float, reach: int | None = None) -> Any:
    """A sparse matrix (B, V) float32 with `fade` to the power of how many items followed, for each item of each
    history, or of its last `reach`."""
    from scipy import sparse

    recent = [list(h) if reach is None else list(h[-reach:]) for h in histories]
    ends = np.cumsum([0, *map(len, recent)])
    columns = np.array([i for h in recent for i in h], dtype=np.int64)
    weight = np.array([fade ** (len(h) - 1 - j) for h in recent for j in range(len(h))], dtype=np.float32)
    return sparse.csr_matrix((weight, columns, ends), shape=(len(recent), size))


def strongest(table: Any, most: int) -> ItemTable:
    """The entries with the largest absolute values of each row of a matrix (V, V), sparse or dense; among equals, those
    of lower numbers."""
    from scipy import sparse

    size = table.shape[0]
    rows = sparse.csr_matrix(table) if sparse.issparse(table) else None
    k = max(1, min(most, size if rows is None else int(np.diff(rows.indptr).max(initial=1))))
    index, weight = np.zeros((size, k), dtype=np.int32), np.zeros((size, k), dtype=np.float32)
    for i in range(size):
        if rows is None:
            columns, values = np.arange(size), table[i]
            if k < size:
                columns = np.sort(np.argpartition(-np.abs(values), k - 1)[:k])
                values = values[columns]
        else:
            a, b = rows.indptr[i : i + 2].tolist()
            columns, values = rows.indices[a:b], rows.data[a:b]
        best = np.lexsort((columns, -np.abs(values)))[:k]
        index[i, : len(best)], weight[i, : len(best)] = columns[best], values[best]
    return ItemTable(torch.from_numpy(index), torch.from_numpy(weight))


def load_table(file: Path, size: int) -> ItemTable:
    """Raises UserError if the file is missing or damaged."""
    tensors = read_tensors(file)
    try:
        k = tensors["index"].shape[1] if "index" in tensors and tensors["index"].dim() == 2 else 0
        index = check_tensor(tensors, "index", (size, k), (torch.int32,))
        weight = check_tensor(tensors, "weight", (size, k), (torch.float32,))
        if k == 0 or int(index.min()) < 0 or int(index.max()) >= size or not bool(weight.isfinite().all()):
            raise ValueError("it names an item that is not in the catalogue, or a weight is not a number")
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}. Restore a copy of it.", "damaged", file=str(file)) from None
    return ItemTable(index, weight)
