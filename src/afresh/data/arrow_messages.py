"""What the messages of an Arrow file declare: the bytes into which each unpacks, before the library unpacks it.

A message says in a table of FlatBuffers where its buffers lie, and each buffer that is packed begins with its size
unpacked (Message.fbs of Arrow). Only these are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HEADER_TYPE, HEADER = 1, 2  # numbers of fields of Message,
DATA = 1  # of DictionaryBatch,
BUFFERS, COMPRESSION = 2, 3  # and of RecordBatch
DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # types of headers
BUFFER = 16  # bytes of a pair of a place and a length


def unpacked_bytes(metadata: bytes, body: Any) -> int:
    """Bytes of the buffers of a message when unpacked; `body` is a buffer of pyarrow. 0 for a schema.

    Raises an exception of Python for damage.
    """
    message = _number(metadata, 0, 4)
    kind = _field(metadata, message, HEADER_TYPE)
    header = _table(metadata, message, HEADER)
    if kind is None or header is None or metadata[kind] not in (DICTIONARY_BATCH, RECORD_BATCH):
        return 0
    batch = _table(metadata, header, DATA) if metadata[kind] == DICTIONARY_BATCH else header
    if batch is None:
        return 0
    packed = _table(metadata, batch, COMPRESSION) is not None
    return sum(_size(body, at, length) if packed else length for at, length in _buffers(metadata, batch))


def _size(body: Any, at: int, length: int) -> int:
    """Bytes of a packed buffer when unpacked, by the number before it; -1 says that it is not packed."""
    if not length:
        return 0
    if at < 0 or length < 8 or at + length > body.size:
        raise ValueError("a buffer outside of its message")
    size = int.from_bytes(body[at : at + 8].to_pybytes(), "little", signed=True)
    return length - 8 if size == -1 else size


def _buffers(raw: bytes, batch: int) -> Iterator[tuple[int, int]]:
    """Places and lengths of the buffers of a RecordBatch."""
    start = _table(raw, batch, BUFFERS)
    for i in range(0 if start is None else _number(raw, start, 4)):
        at = (start or 0) + 4 + i * BUFFER
        yield _number(raw, at, 8), _number(raw, at + 8, 8)


def _field(raw: bytes, table: int, number: int) -> int | None:
    """Where a field of a table is; None if it is absent."""
    places = table - int.from_bytes(raw[table : table + 4], "little", signed=True)
    at = 4 + 2 * number
    offset = _number(raw, places + at, 2) if at < _number(raw, places, 2) else 0
    return table + offset if offset else None


def _table(raw: bytes, table: int, number: int) -> int | None:
    """Where a table or vector begins to which a field refers."""
    field = _field(raw, table, number)
    return None if field is None else field + _number(raw, field, 4)


def _number(raw: bytes, at: int, size: int) -> int:
    """Raises ValueError for a place outside of the message."""
    if not 0 <= at <= len(raw) - size:
        raise ValueError("a place outside of its message")
    return int.from_bytes(raw[at : at + size], "little")
