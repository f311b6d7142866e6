"""Which user has which item, as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from afresh.domains.interactions.ranking import Items

if TYPE_CHECKING:
    from scipy import sparse


def incidence(histories: Sequence[Items], items: int) -> sparse.csr_matrix:
    """(users, V): 1 where the history holds the item, however often, else 0; float32.

    Raises ValueError if a number is not one of an item.
    """
    from scipy import sparse  # here: a server that recommends nothing starts earlier

    sizes = [len(h) for h in histories]
    columns = np.concatenate([*histories, np.empty(0, np.int64)]).astype(np.int64)
    if len(columns) and not (columns.min() >= 0 and columns.max() < items):
        raise ValueError(
            f"the histories hold items {columns.min()} to {columns.max()}, but the catalogue has 0 to {items - 1}"
        )
    matrix = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])),
        (len(histories), items),
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
