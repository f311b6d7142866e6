"""The keyed phases of the mark in sounds, one a cell, which say where its difference lies between two steps."""

from __future__ import annotations

from functools import lru_cache
from hashlib import shake_256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afresh.services.watermark.sound_cells import BANDS, CELLS, PAIRS

SYMBOLS, VALUES = 4, 256  # a payload of four bytes
PURPOSE = b"afresh: mark in sounds, 1"
Array = NDArray[np.float32]


class Codes(NamedTuple):
    """`owner` (CELLS,): the symbol of each cell. `presence` (CELLS,) complex: phasors that do not depend on the
    payload. `symbols`: of each symbol its cells (n,), and phasors (VALUES, n) complex, one row for each value."""

    owner: NDArray[np.uint8]
    presence: NDArray[np.complex64]
    symbols: tuple[tuple[NDArray[np.int64], NDArray[np.complex64]], ...]


def presence(key: bytes) -> Array:
    """In turns, (PAIRS, BANDS)."""
    return _turns(key, "presence", CELLS).reshape(PAIRS, BANDS)


def payload_phases(key: bytes, payload: int) -> Array:
    """In turns, (PAIRS, BANDS): each cell carries one of the four bytes of the payload."""
    owner, out = owners(key), np.empty(CELLS, np.float32)
    for symbol in range(SYMBOLS):
        value = payload >> 8 * symbol & (VALUES - 1)
        of = owner == symbol
        out[of] = _turns(key, f"{symbol} {value}", int(of.sum()))
    return out.reshape(PAIRS, BANDS)


@lru_cache(4)
def codes(key: bytes) -> Codes:
    owner = owners(key)
    symbols = []
    for symbol in range(SYMBOLS):
        of = np.flatnonzero(owner == symbol)
        turns = np.stack([_turns(key, f"{symbol} {value}", len(of)) for value in range(VALUES)])
        symbols.append((of, _phasors(turns)))
    return Codes(owner, _phasors(_turns(key, "presence", CELLS)), tuple(symbols))


def owners(key: bytes) -> NDArray[np.uint8]:
    """The symbol of the payload that each cell carries, (CELLS,)."""
    return np.frombuffer(_bytes(key, "owner", CELLS), np.uint8) % SYMBOLS


def _turns(key: bytes, purpose: str, count: int) -> Array:
    """Uniform on [0, 1), in steps of 2^-16."""
    return np.frombuffer(_bytes(key, purpose, 2 * count), "<u2").astype(np.float32) / np.float32(65536)


def _bytes(key: bytes, purpose: str, count: int) -> bytes:
    """SHAKE256 (FIPS 202), which is the same in every version of Python."""
    return shake_256(PURPOSE + bytes([len(key)]) + key + purpose.encode()).digest(count)


def _phasors(turns: Array) -> NDArray[np.complex64]:
    return np.exp(-2j * np.pi * turns).astype(np.complex64)
