"""Batches of Arrow to rows of Python, in pieces that take a bounded amount of memory.

A batch of some kilobytes can stand for gigabytes of rows, as a value that occurs often is stored once and one without
content not at all. Therefore what its rows would take is counted before they are made, and made a few at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from afresh.data.files import MB, PER_VALUE, FileError
from afresh.data.limits import Meter

PIECE = 32 * MB  # that rows take which are made at once;
MOST_ROW = 256 * MB  # but that one row may take

Row = dict[str, Any]


def rows(batch: Any, meter: Meter) -> Iterator[Row]:
    """The rows of a batch, times as texts, counted with their bytes; the time between them does not count.

    Raises FileError for a row that is too large or of a type that is not read, and LimitExceeded.
    """
    meter.add(bytes=sum(map(content, batch.columns)), items=batch.num_rows)
    for piece in pieces(plain_columns(batch)):
        made = piece.to_pylist()
        meter.check_time()
        with meter.paused():
            yield from made


def pieces(batch: Any) -> Iterator[Any]:
    """Consecutive parts of a batch whose rows take at most PIECE bytes, or a single one MOST_ROW."""
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        size = sum(map(cost, part.columns))
        if part.num_rows > 1 and size > PIECE:
            half = part.num_rows // 2
            waiting += [part.slice(half), part.slice(0, half)]
        elif part.num_rows == 1 and size > MOST_ROW:
            raise FileError(f"a row takes {size / MB:,.0f} MB, but at most {MOST_ROW / MB:,.0f} MB are read: divide it")
        elif part.num_rows:
            yield part


def without_references(batch: Any) -> Any:
    """The batch with each value in its row, as a piece that is bounded may have."""
    import pyarrow

    columns = [c.dictionary_decode() if isinstance(c, pyarrow.DictionaryArray) else c for c in batch.columns]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


def cost(column: Any) -> int:
    """Bytes that the values of a column take as objects of Python. Raises FileError for a type that is not read."""
    return content(column) + PER_VALUE * count(column)


def count(column: Any) -> int:
    """The values of a column, those within lists and structures included."""
    return len(column) + sum(map(count, _inside(column)))


def content(column: Any) -> int:
    """Bytes of the values of a column; of one that occurs often, every occurrence counts."""
    import pyarrow
    import pyarrow.compute as compute
    from pyarrow import types

    if isinstance(column, pyarrow.DictionaryArray):
        kind = column.dictionary.type
        if is_text(kind):
            lengths = compute.take(compute.binary_length(column.dictionary), column.indices)
            return int(compute.sum(compute.cast(lengths, "int64")).as_py() or 0)
        if not types.is_primitive(kind):
            raise FileError(f"values of the type {str(column.type)[:80]} are not read: write them as plain values")
        return int(column.nbytes)
    if is_view(column.type):  # several values may refer to the same bytes; each begins with its length
        lengths = np.frombuffer(column.buffers()[1], np.int32)[::4]
        return int(lengths[column.offset : column.offset + len(column)].sum(dtype=np.int64))
    inside = _inside(column)
    return sum(map(content, inside)) if inside else int(column.nbytes)


def is_text(kind: Any) -> bool:
    """Whether a type has values of any length: text or bytes."""
    from pyarrow import types

    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def is_view(kind: Any) -> bool:
    """Whether values refer to bytes that others may refer to as well."""
    from pyarrow import types

    return bool(types.is_string_view(kind) or types.is_binary_view(kind))


def _inside(column: Any) -> list[Any]:
    """The columns of what is in lists and structures. Raises FileError for a type that is not read."""
    import pyarrow
    from pyarrow import types

    kind = column.type
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _inside(column.storage)
    if types.is_map(kind):
        offsets = column.offsets
        start, stop = offsets[0].as_py(), offsets[-1].as_py()
        return [column.keys[start:stop], column.items[start:stop]]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [column.flatten()]
    if types.is_struct(kind):
        return list(column.flatten())
    if kind.num_fields:  # of unions, of what is stored by its runs, and of views of lists
        raise FileError(f"values of the type {str(kind)[:80]} are not read: write them as plain values")
    return []


def plain_columns(batch: Any) -> Any:
    """With times as texts and durations as numbers: those beyond Python's, or in nanoseconds, have no other form."""
    import pyarrow
    from pyarrow import types

    def plain(column: Any) -> Any:
        if types.is_duration(column.type):
            return column.cast(pyarrow.int64())
        return column.cast(pyarrow.string()) if types.is_temporal(column.type) else column

    columns = [plain(c) for c in batch.columns]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
