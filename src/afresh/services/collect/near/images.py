"""Images: the changes of brightness in a thumbnail, then the thumbnails themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.data.image.kind import IMAGE
from afresh.data.image.near_duplicates import FINE, MAX_DIFFERENT, Pixels, difference_hash, similarity, thumbnail
from afresh.services.collect.near import Search
from afresh.services.collect.record import Record

SHAPE = (FINE, FINE, 3)
KEYS = MAX_DIFFERENT + 1  # parts of the hash: if at most MAX_DIFFERENT places differ, one part is equal
FACTORS = np.array([pow(3, k, 1 << 64) for k in range(64)], np.uint64)


def prints(records: Sequence[Record]) -> list[bytes]:
    out = []
    for record in records:
        try:
            out.append(thumbnail(IMAGE.decode(record.content or b"")).tobytes())
        except ValueError:
            out.append(b"")
    return out


def keys(found: Sequence[bytes]) -> NDArray[np.uint64]:
    thumbnails = np.stack([_pixels(f) if f else np.zeros(SHAPE, np.uint8) for f in found])
    steps = (difference_hash(thumbnails) + 1).astype(np.uint64)  # (n, 128) of 0, 1, 2
    # Every ninth place is of one part, so that no part is of an empty margin alone.
    parts = [steps[:, k::KEYS] for k in range(KEYS)]
    numbers = np.stack([(p * FACTORS[: p.shape[1]]).sum(1, dtype=np.uint64) + np.uint64(1) for p in parts], 1)
    return np.where(np.array([bool(f) for f in found])[:, None], numbers, np.uint64(0))


def details(rows: Sequence[Mapping[str, Any]]) -> Sequence[Pixels]:
    return [_pixels(row["near"]) for row in rows]


def _pixels(found: bytes) -> Pixels:
    return np.frombuffer(found, np.uint8).reshape(SHAPE)


SEARCH = Search(("image",), prints, details, similarity, keys=keys)
