"""Which items follow which in training: a sparse table of transitions, as a memory beside a network.

The weight of b after a sums d^-POWER over the pairs in which b was chosen d events after a; pairs in the other order
count BACKWARD as much. Both items' frequencies divide it with an exponent, so that what everybody chooses is not
everything's neighbour (Deshpande and Karypis 2004, sec. 3.2; in the order of time as in Garg et al. 2019, STAN). Of a
history, the last items count most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.domains.interactions.item_table import ItemTable, strongest

FILE = "neighbours.safetensors"
REACH, POWER = 20, 0.7  # events apart, and how fast a pair counts less with them
BACKWARD, EXPONENT, SHRINK = 0.3, 0.3, 5.0  # chosen on validation events (docs/development/log.md)
FADE = 0.6  # of an item's weight with each later event of a history
MOST = 128  # neighbours of an item that are kept


def following(table: ItemTable, histories: Sequence[Sequence[int]]) -> Any:
    """A sparse matrix (B, V): how often each item followed those of a history, of which the last count most."""
    return table.scores(histories, FADE, REACH)


def fit_neighbours(histories: Sequence[NDArray[np.int64]], size: int, before: ItemTable | None = None) -> ItemTable:
    """The neighbours of `size` items in histories of item numbers, oldest first, added to those of `before`, which may
    be of fewer items."""
    found = transitions(histories, size)
    if before is not None:
        grown = before.matrix.copy()
        grown.resize(size, size)
        found = found + grown
    return strongest(found, MOST)


def transitions(histories: Sequence[NDArray[np.int64]], size: int) -> Any:
    """The weights of all pairs, a sparse matrix (size, size)."""
    from scipy import sparse

    ends = np.cumsum([len(h) + 1 for h in histories], dtype=np.int64)  # where each history is followed by -1
    flat = np.full(ends[-1] if len(ends) else 0, -1, dtype=np.int64)
    if histories:
        flat[np.delete(np.arange(len(flat)), ends - 1)] = np.concatenate(histories)
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
