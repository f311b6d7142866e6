"""Sounds: fingerprints of their spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.data.audio.fingerprints import FREQUENCY_BANDS, MAX_DECIBELS, TIME_CELLS, fingerprint, fingerprints_match
from afresh.data.audio.kind import SOUND
from afresh.services.collect.near import Array, Search
from afresh.services.collect.record import Record

TOP = 3_600.0  # Hz; the same for all, so that fingerprints can be compared; less for rates below 8 kHz
BLOCKS = 4  # along either axis of a fingerprint: the means of its blocks differ by no more than its cells


def prints(records: Sequence[Record]) -> list[bytes]:
    out = []
    for record in records:
        try:
            sound = SOUND.decode(record.content or b"")
        except ValueError:
            out.append(b"")
            continue
        top = min(TOP, 0.45 * sound.rate)
        cells, seconds = fingerprint(sound, top) if len(sound.samples) else (np.zeros(0), 0.0)
        out.append(np.concatenate([[top, seconds], cells.ravel()]).astype(np.float32).tobytes() if seconds else b"")
    return out


def details(rows: Sequence[Mapping[str, Any]]) -> Sequence[Array]:
    return [np.frombuffer(row["near"], np.float32) for row in rows]


def similarity(a: Array, b: Array) -> float:
    return fingerprints_match(a[2:], float(a[1]), b[2:], float(b[1])) if a[0] == b[0] else 0.0


def coarse(found: Sequence[Array]) -> NDArray[np.float32]:
    cells = np.stack(found)[:, 2:].reshape(-1, BLOCKS, TIME_CELLS // BLOCKS, BLOCKS, FREQUENCY_BANDS // BLOCKS)
    return cells.mean((2, 4), dtype=np.float32).reshape(len(cells), -1)


SEARCH = Search(
    ("audio",), prints, details, similarity, coarse=coarse, radius=MAX_DECIBELS * BLOCKS + 1e-3
)  # the distance is the root mean square difference times the root of the number of blocks
