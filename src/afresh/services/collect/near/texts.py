"""Texts, code and conversations: runs of five words, by the bands of a min-wise signature."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from afresh.data.text.near_duplicates import BANDS, THRESHOLD, bands_of, jaccard
from afresh.data.text.shingles import Hashes, mixed, shingles_of
from afresh.services.collect.near import Search
from afresh.services.collect.record import Record


def said(kind: str, text: str) -> str:
    """The text itself; of a conversation the contents of its messages, without who said them."""
    if kind != "conversation":
        return text
    try:
        return "\n".join(str(m["content"]) for m in json.loads(text))
    except (ValueError, TypeError, KeyError):
        return text


def prints(records: Sequence[Record]) -> list[bytes]:
    bands = bands_of([said(r.kind, r.text or "") for r in records])
    kinds = np.array([int.from_bytes(blake3(r.kind.encode()).digest()[:8], "little") for r in records], np.uint64)
    # Items of two kinds are never near duplicates.
    return [row.tobytes() if row.any() else b"" for row in np.where(bands > 0, mixed(bands + kinds[:, None]), bands)]


def keys(found: Sequence[bytes]) -> NDArray[np.uint64]:
    none = bytes(8 * BANDS)
    return np.frombuffer(b"".join(f or none for f in found), np.uint64).reshape(-1, BANDS)


def details(rows: Sequence[Mapping[str, Any]]) -> Sequence[Hashes]:
    return shingles_of([said(row["kind"], row["text"] or "") for row in rows])


def similarity(a: Hashes, b: Hashes) -> float:
    if min(len(a), len(b)) < THRESHOLD * max(len(a), len(b)):
        return 0.0
    found = jaccard(a, b)
    return found if found >= THRESHOLD else 0.0


SEARCH = Search(("text", "code", "conversation"), prints, details, similarity, keys=keys)
