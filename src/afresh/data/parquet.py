"""Parquet files to rows, with a running count of what they decode to.

A Parquet file of 552 bytes can hold a billion rows, as equal values are stored once, and the sizes that its end
declares need not be true. Therefore the headers of its pages are read before, it is decoded a few rows at a time, texts
as references to distinct values, and reading ends where the rows would need too much memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from afresh.data.files import MB, PER_VALUE, FileError, check_memory, too_large

ROWS, NESTED_ROWS = 4096, 64  # that are decoded at once, and with lists, whose texts are not read as references
TIMES = 8  # the limit on a file's values, for the objects that hold them
MOST_COLUMNS = 10_000
MOST_REPEATED = 10_000  # rows a byte of a file
DAMAGED = (OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, MemoryError)
Fields = dict[int, Any]
Row = dict[str, Any]


def read_parquet(raw: bytes, max_mb: int, choose: Callable[[Any], Sequence[str]]) -> list[Row]:
    """The rows of the columns that `choose` picks from the schema. Times are texts, such as 2024-05-01 12:00:00.

    Raises FileError if the file is damaged, has more than `max_mb` MB of values, or needs more memory than is free.
    """
    return list(_rows(raw, max_mb, choose, whole=True))


def stream_parquet(path: Path, max_mb: int, choose: Callable[[Any], Sequence[str]]) -> Iterator[Row]:
    """The rows like `read_parquet`, a few at a time in memory; so only as many may not have more than `max_mb` MB."""
    with path.open("rb") as file:
        try:
            raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise FileError(f"not a readable Parquet file: {error}") from None
        yield from _rows(raw, max_mb, choose, whole=False)  # the map is closed when nothing refers to it


def _rows(raw: bytes | mmap.mmap, max_mb: int, choose: Callable[[Any], Sequence[str]], *, whole: bool) -> Iterator[Row]:
    """The rows. Limits are those of the whole file, or of what is decoded at once."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(pyarrow.BufferReader(raw))
        if len(schema) > MOST_COLUMNS:
            raise FileError(f"{len(schema):,} columns, but at most {MOST_COLUMNS:,} are read: remove some")
        columns = list(choose(schema))
        words = [f.name for f in schema if f.name in columns and _is_text(f.type)]
        count, chunks = _contents(raw, set(columns))
        if whole:
            needed = (count * 4 + sum(c[VALUES] for c in chunks)) * PER_VALUE
            if needed > TIMES * max_mb * MB:
                raise FileError(f"{count:,} rows are too many: split it, or raise `data.max_file_mb`")
            check_memory(needed)
        elif count > MOST_REPEATED * len(raw):
            raise FileError(f"{count:,} rows in {len(raw):,} bytes: a decompression bomb")
        pages = [size for c in chunks for size in page_sizes(raw, *_span(c))]
        unpacked = sum(pages) if whole else max(pages, default=0)
        if unpacked > max_mb * MB:
            raise FileError(too_large(unpacked, max_mb))
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(raw), read_dictionary=words)
        size = 0
        nested = any(f.type.num_fields for f in schema if f.name in columns)
        for batch in file.iter_batches(NESTED_ROWS if nested else ROWS, columns=columns):
            now = sum(map(_bytes, batch.columns))
            size = size + now if whole else now
            if size > max_mb * MB:
                raise FileError(f"more than {max_mb:,} MB when decoded: split it, or raise `data.max_file_mb`")
            yield from plain_columns(batch).to_pylist()
    except FileError:
        raise
    except (pyarrow.ArrowException, *DAMAGED) as error:
        raise FileError(f"not a readable Parquet file: {error or type(error).__name__}") from None


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind))


# --------------------------------------------------------------------------- what a file declares

# Numbers of fields (parquet.thrift): of FileMetaData, RowGroup, ColumnChunk, ColumnMetaData and PageHeader.
ROW_COUNT, GROUPS = 3, 4
CHUNKS = 1
OF_CHUNK = 3
PATH, VALUES, PACKED, FIRST_PAGE, DICTIONARY = 3, 5, 7, 9, 11
PAGE_UNPACKED, PAGE_PACKED = 2, 3


def _contents(raw: bytes | mmap.mmap, columns: set[str]) -> tuple[int, list[Fields]]:
    """The number of rows, and the ColumnMetaData of every part of the columns, parts of nested ones included.

    The library's own view of these ends the process, by an exception in C++, for some damaged files.
    """
    if raw[-4:] != b"PAR1":
        raise ValueError("its end is missing")
    size = int.from_bytes(raw[-8:-4], "little")
    fields, _ = _structure(raw[max(0, len(raw) - 8 - size) : -8], 0)
    chunks = [chunk[OF_CHUNK] for group in fields[GROUPS] for chunk in group[CHUNKS]]
    return fields[ROW_COUNT], [c for c in chunks if c[PATH][0].decode() in columns]


def _span(chunk: Fields) -> tuple[int, int]:
    """Where the pages of a chunk begin and end."""
    start = min(chunk[FIRST_PAGE], chunk.get(DICTIONARY) or chunk[FIRST_PAGE])
    return start, start + chunk[PACKED]


def page_sizes(raw: bytes | mmap.mmap, start: int, stop: int) -> Iterator[int]:
    """The sizes of pages when they are unpacked, from their headers, for which memory is allocated.

    Raises an exception of Python for anything else than pages.
    """
    while start < stop:
        fields, after = _structure(raw, start)
        if min(fields[PAGE_UNPACKED], fields[PAGE_PACKED]) < 0:
            raise ValueError("a page of a negative size")
        yield fields[PAGE_UNPACKED]
        start = after + fields[PAGE_PACKED]


def _structure(raw: bytes | mmap.mmap, at: int) -> tuple[Fields, int]:
    """The fields of a structure in Thrift's compact protocol by their numbers, and where it ends."""
    found: Fields = {}
    field = 0
    while head := raw[at]:
        at += 1
        if head >> 4:
            field += head >> 4
        else:
            field, at = _number(raw, at)
        kind = head & 15
        found[field], at = (kind == 1, at) if kind in (1, 2) else _value(raw, at, kind)  # booleans are part of the kind
    return found, at + 1


def _value(raw: bytes | mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    """A value of a kind, and where it ends."""
    if kind in (1, 2, 3):  # a byte; a boolean in a list
        return raw[at], at + 1
    if kind in (4, 5, 6):
        return _number(raw, at)
    if kind == 7:
        return raw[at + 7] * 0.0, at + 8  # not needed
    if kind == 8:
        size, at = _unsigned(raw, at)
        return raw[at : at + size], at + size
    if kind in (9, 10):
        size, of = raw[at] >> 4, raw[at] & 15
        size, at = _unsigned(raw, at + 1) if size == 15 else (size, at + 1)
        out = []
        for _ in range(size):
            value, at = _value(raw, at, of)
            out.append(value)
        return out, at
    if kind == 12:
        return _structure(raw, at)
    raise ValueError(f"a field of kind {kind}")


def _number(raw: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    value, at = _unsigned(raw, at)
    return (value >> 1) ^ -(value & 1), at


def _unsigned(raw: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        value |= (raw[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of too many bytes")


# --------------------------------------------------------------------------- values


def _bytes(column: Any) -> int:
    """What the values of a column take; of a text that occurs often, every occurrence counts."""
    import pyarrow
    import pyarrow.compute as compute

    if not isinstance(column, pyarrow.DictionaryArray):
        return int(column.nbytes)
    kind = column.dictionary.type
    if not _is_text(kind):
        return int(column.nbytes + column.dictionary.nbytes)
    lengths = compute.take(compute.binary_length(column.dictionary), column.indices)
    return int(compute.sum(compute.cast(lengths, "int64")).as_py() or 0)


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
