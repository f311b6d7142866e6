"""Which items follow which in training: a sparse table of transitions, as a memory beside a network.

The weight of b after a sums d^-POWER over the pairs in which b was chosen d events after a; pairs in the other order
count BACKWARD as much. Both items' frequencies divide it with an exponent, so that what everybody chooses is not
everything's neighbour (Deshpande and Karypis 2004, sec. 3.2; in the order of time as in Garg et al. 2019, STAN). Of a
history, the last items count most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from afresh.core import UserError
from afresh.core.files import write_file
from afresh.data.tensor_file import check_tensor, read_tensors

FILE = "neighbours.safetensors"
REACH, POWER = 20, 0.7  # events apart, and how fast a pair counts less with them
BACKWARD, EXPONENT, SHRINK = 0.3, 0.3, 5.0  # chosen on validation events (docs/development/log.md)
FADE = 0.6  # of an item's weight with each later event of a history
MOST = 128  # neighbours of an item that are kept


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For each of V items, the numbers of up to K items that follow it (V, K), the strongest first, and their weights
    (V, K), 0 beyond the last."""

    index: Tensor
    weight: Tensor

    def probabilities(self, histories: Sequence[Sequence[int]]) -> Tensor:
        """p of each item after each history of item numbers, (B, V) float32; zeros where nothing is known."""
        out = torch.zeros(len(histories), len(self.index))
        for row, history in zip(out, histories, strict=True):
            recent = torch.tensor(list(history[: -REACH - 1 : -1]), dtype=torch.int64)
            if len(recent):
                weight = self.weight[recent] * FADE ** torch.arange(len(recent))[:, None]
                row.index_add_(0, self.index[recent].flatten().long(), weight.flatten())
        return out / out.sum(1, keepdim=True).clamp_min(1e-12)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / FILE, save({"index": self.index, "weight": self.weight}))


def fit_neighbours(histories: Sequence[NDArray[np.int64]], size: int, before: Neighbours | None = None) -> Neighbours:
    """The neighbours of `size` items in histories of item numbers, oldest first, added to those of `before`, which may
    be of fewer items."""
    from scipy import sparse

    found = transitions(histories, size)
    if before is not None:
        old, k = before.index.shape
        rows = np.repeat(np.arange(old), k)
        values = (before.weight.numpy().ravel(), (rows, before.index.numpy().ravel()))
        found = found + sparse.csr_matrix(values, shape=(size, size))
    return strongest(found.tocsr(), MOST)


def transitions(histories: Sequence[NDArray[np.int64]], size: int) -> Any:
    """The weights of all pairs, a sparse matrix (size, size)."""
    from scipy import sparse

    flat = np.concatenate([np.append(h, -1) for h in histories]) if histories else np.empty(0, dtype=np.int64)
    found = sparse.csr_matrix((size, size), dtype=np.float32)
    within = flat >= 0  # whether no history ends between the two events
    for d in range(1, REACH + 1):
        within = within[:-1] & (flat[d:] >= 0)
        if not within.any():
            break
        a, b = flat[: len(flat) - d][within], flat[d:][within]
        ones = np.full(len(a), d**-POWER, dtype=np.float32)
        found = found + sparse.csr_matrix((ones, (a, b)), shape=(size, size))
    counts = np.bincount(flat[flat >= 0], minlength=size)
    scale = sparse.diags(((counts + SHRINK) ** -EXPONENT).astype(np.float32))
    return (scale @ (found + BACKWARD * found.T) @ scale).tocsr()


def strongest(table: object, most: int) -> Neighbours:
    """The largest entries of each row of a sparse matrix."""
    from scipy import sparse

    assert isinstance(table, sparse.csr_matrix)
    size = table.shape[0]
    k = max(1, min(most, int(np.diff(table.indptr).max(initial=1))))
    index, weight = np.zeros((size, k), dtype=np.int32), np.zeros((size, k), dtype=np.float32)
    for i, (a, b) in enumerate(zip(table.indptr[:-1].tolist(), table.indptr[1:].tolist(), strict=True)):
        best = np.lexsort((table.indices[a:b], -table.data[a:b]))[:k]
        index[i, : len(best)], weight[i, : len(best)] = table.indices[a:b][best], table.data[a:b][best]
    return Neighbours(torch.from_numpy(index), torch.from_numpy(weight))


def load_neighbours(folder: Path, size: int) -> Neighbours:
    """Raises UserError if the file is missing or damaged."""
    file = folder / FILE
    tensors = read_tensors(file)
    try:
        k = tensors["index"].shape[1] if "index" in tensors and tensors["index"].dim() == 2 else 0
        index = check_tensor(tensors, "index", (size, k), (torch.int32,))
        weight = check_tensor(tensors, "weight", (size, k), (torch.float32,))
        if k == 0 or int(index.min()) < 0 or int(index.max()) >= size or not bool((weight >= 0).all()):
            raise ValueError("a neighbour is no item of the catalogue, or a weight is negative")
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}. Restore a copy of it.", "damaged", file=str(file)) from None
    return Neighbours(index, weight)
