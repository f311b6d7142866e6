"""Parquet files to rows, with a running count of what they decode to.

A Parquet file of 552 bytes can hold a billion rows, as equal values are stored once, and the sizes that its end
declares need not be true. Therefore the headers of its pages are read before, it is decoded a few rows at a time, texts
as references to distinct values, and reading ends where the rows would need too much memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from afresh.data.files import MB, PER_VALUE, FileError, check_memory, too_large

ROWS, NESTED_ROWS = 4096, 64  # that are decoded at once, and with lists, whose texts are not read as references
TIMES = 8  # the limit on a file's values, for the objects that hold them
MOST_COLUMNS = 10_000


def read_parquet(raw: bytes, max_mb: int, choose: Callable[[Any], Sequence[str]]) -> list[dict[str, Any]]:
    """The rows of the columns that `choose` picks from the schema. Times are texts, such as 2024-05-01 12:00:00.

    Raises FileError if the file is damaged, has more than `max_mb` MB of values, or needs more memory than is free.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(pyarrow.BufferReader(raw))
        if len(schema) > MOST_COLUMNS:
            raise FileError(f"{len(schema):,} columns, but at most {MOST_COLUMNS:,} are read: remove some")
        columns = list(choose(schema))
        words = [f.name for f in schema if f.name in columns and _is_text(f.type)]
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(raw), read_dictionary=words)
        chunks = _chunks(file.metadata, set(columns))
        needed = (file.metadata.num_rows * 4 + sum(c.num_values for c in chunks)) * PER_VALUE
        if needed > TIMES * max_mb * MB:
            raise FileError(f"{file.metadata.num_rows:,} rows are too many: split it, or raise `data.max_file_mb`")
        check_memory(needed)
        unpacked = sum(size for c in chunks for size in page_sizes(raw, *_span(c)))
        if unpacked > max_mb * MB:
            raise FileError(too_large(unpacked, max_mb))
        rows: list[dict[str, Any]] = []
        size = 0
        nested = any(f.type.num_fields for f in schema if f.name in columns)
        for batch in file.iter_batches(NESTED_ROWS if nested else ROWS, columns=columns):
            size += sum(map(_bytes, batch.columns))
            if size > max_mb * MB:
                raise FileError(f"more than {max_mb:,} MB when decoded: split it, or raise `data.max_file_mb`")
            rows += _plain(batch).to_pylist()
    except FileError:
        raise
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        LookupError,
        OverflowError,
        RecursionError,
        MemoryError,
    ) as error:
        raise FileError(f"not a readable Parquet file: {error or type(error).__name__}") from None
    return rows


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind))


def _chunks(metadata: Any, columns: set[str]) -> list[Any]:
    """What the file says of the parts of the columns, parts of nested ones included."""
    places = ((g, c) for g in range(metadata.num_row_groups) for c in range(metadata.num_columns))
    chunks = (metadata.row_group(g).column(c) for g, c in places)
    return [c for c in chunks if c.path_in_schema.split(".")[0] in columns]


def _span(chunk: Any) -> tuple[int, int]:
    """Where the pages of a chunk begin and end."""
    first = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
    start = min(chunk.data_page_offset, first or chunk.data_page_offset)
    return start, start + chunk.total_compressed_size


def page_sizes(raw: bytes, start: int, stop: int) -> Iterator[int]:
    """The sizes of pages when they are unpacked, from their headers, for which memory is allocated.

    A header is a structure of Thrift's compact protocol, in which fields 2 and 3 are the sizes unpacked and packed
    (parquet.thrift, PageHeader). Raises ValueError or IndexError for anything else.
    """
    while start < stop:
        sizes, after = _fields(raw, start)
        if min(sizes.get(2, -1), sizes.get(3, -1)) < 0:
            raise ValueError("a page without its size")
        yield sizes[2]
        start = after + sizes[3]


def _fields(raw: bytes, at: int) -> tuple[dict[int, int], int]:
    """The whole numbers among the fields of a structure, and where it ends."""
    found: dict[int, int] = {}
    field = 0
    while head := raw[at]:
        kind, at = head & 15, at + 1
        if head >> 4:
            field += head >> 4
        else:
            number, at = _varint(raw, at)
            field = _signed(number)
        if kind in (4, 5, 6):
            number, at = _varint(raw, at)
            found[field] = _signed(number)
        else:
            at = _skipped(raw, at, kind)
    return found, at + 1


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        value |= (raw[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of too many bytes")


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def _skipped(raw: bytes, at: int, kind: int) -> int:
    """Where a value that is no whole number ends: booleans are part of the kind of a field."""
    if kind in (1, 2):
        return at
    if kind == 8:  # bytes
        size, at = _varint(raw, at)
        return at + size
    if kind == 12:
        return _fields(raw, at)[1]
    raise ValueError(f"a field of kind {kind} in the header of a page")


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


def _plain(batch: Any) -> Any:
    """With times as texts and durations as numbers: those beyond Python's, or in nanoseconds, have no other form."""
    import pyarrow
    from pyarrow import types

    def plain(column: Any) -> Any:
        if types.is_duration(column.type):
            return column.cast(pyarrow.int64())
        return column.cast(pyarrow.string()) if types.is_temporal(column.type) else column

    columns = [plain(c) for c in batch.columns]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
