"""Parquet files to rows, with a running count of what they decode to.

A Parquet file of 552 bytes can hold a billion rows, as equal values are stored once, and the sizes that its end
declares need not be true. Therefore the headers of its pages are read before, it is decoded a few rows at a time, texts
as references to distinct values, and reading ends where the rows would need too much memory or time.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from afresh.data.arrow_values import Row, content, pieces, rows, without_references
from afresh.data.files import MB, PER_VALUE, FileError, Given, check_memory, mapped, too_large
from afresh.data.limits import Limits, Meter, parsing
from afresh.data.tables.parquet_pages import (
    BY_DICTIONARY,
    SHARES_PREFIX,
    Chunk,
    Declared,
    Leaf,
    Page,
    declared,
    longest_text,
    pages,
)

ROWS, NESTED_ROWS = 4096, 64  # that are decoded at once, and with lists, of which one row may have any number
LEVELS = 4  # bytes for where a value in a list belongs
AT_ONCE = 64 * MB  # that such rows take, if each of their values has a width
LISTS = 512 * MB  # that the lists of a group of rows take when decoded: all of them may be in one row
TIMES = 8  # the limit on a file's values, for the objects that hold them
MOST_COLUMNS = 10_000
MOST_REPEATED = 10_000  # rows a byte of a file
MANY, MOST_FOR_A_BYTE = 4_000_000, 100  # more values of a file than these are refused if they are as many for a byte
RATIO, RATIO_FROM = 200, 64 * MB  # unpacked bytes of pages divided by packed ones, from a size on
LIST_RATIO = 20  # the same of texts in lists
MADE = 1024 * MB  # of values that a file may become, or RATIO times its size
SECONDS = 300.0  # of the processor for one file


def read_parquet(raw: bytes, max_mb: int, choose: Callable[[Any], Sequence[str]]) -> list[Row]:
    """The rows of the columns that `choose` picks from the schema. Times are texts, such as 2024-05-01 12:00:00.

    Raises FileError if the file is damaged, has more than `max_mb` MB of values, or needs more memory than is free.
    """
    with parsing("Parquet file"):
        return [row for batch, meter in _batches(raw, max_mb, choose, whole=True) for row in rows(batch, meter)]


def stream_parquet(
    file: Given, max_mb: int, choose: Callable[[Any], Sequence[str]], groups: Sequence[int] | None = None
) -> Iterator[Row]:
    """The rows like `read_parquet`, a few at a time in memory; so only as many may not have more than `max_mb` MB.
    `groups`: the numbers of the groups of rows that are read; None for all."""
    with parsing("Parquet file"):
        for batch, meter in _batches(mapped(file), max_mb, choose, groups):
            yield from rows(batch, meter)


def group_sizes(file: Given) -> list[int]:
    """About how many bytes each group of rows has when unpacked. Raises FileError if the file cannot be read."""
    with parsing("Parquet file"):
        groups = declared(mapped(file)).groups
        return [sum(max(c.stop - c.start, c.unpacked) for c in group) for group in groups]


def stream_batches(file: Given, max_mb: int) -> Iterator[Any]:
    """All columns like `stream_parquet`, as batches (pyarrow.RecordBatch) whose rows take a bounded amount of memory.
    Times keep their types."""
    with parsing("Parquet file"):
        for batch, meter in _batches(mapped(file), max_mb, lambda schema: schema.names):
            meter.add(bytes=sum(map(content, batch.columns)), items=batch.num_rows)
            for piece in pieces(batch):
                with meter.paused():
                    yield without_references(piece)


def read_schema(file: Given) -> Any:
    """The schema, of pyarrow, with the metadata of the file. Raises FileError if it cannot be read."""
    with parsing("Parquet file"):
        return _schema(raw := mapped(file), declared(raw))


def _schema(raw: bytes | mmap.mmap, file: Declared) -> Any:
    import pyarrow
    import pyarrow.parquet

    top = {path[0] for path in file.leaves}
    if len(top) > MOST_COLUMNS:
        raise FileError(f"{len(top):,} columns, but at most {MOST_COLUMNS:,} are read: remove some")
    return pyarrow.parquet.read_schema(pyarrow.BufferReader(raw))


def _batches(
    raw: bytes | mmap.mmap,
    max_mb: int,
    choose: Callable[[Any], Sequence[str]],
    groups: Sequence[int] | None = None,
    *,
    whole: bool = False,
) -> Iterator[tuple[Any, Meter]]:
    """Batches of rows, some of whose texts are references, with the meter of the file. `whole`: limits are those of the
    file, and not of what is decoded at once."""
    import pyarrow
    import pyarrow.parquet

    meter = Meter(Limits(bytes=max(MADE, RATIO * len(raw)), seconds=SECONDS))
    description = declared(raw)
    chosen = range(len(description.groups)) if groups is None else groups
    description = replace(description, groups=[description.groups[number] for number in chosen])
    schema = _schema(raw, description)
    columns = list(choose(schema))
    most, words = _check_declared(raw, description, columns, max_mb, meter, whole=whole)
    file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(raw), read_dictionary=words)
    size = 0
    nested = any(f.type.num_fields for f in schema if f.name in columns)
    for batch in file.iter_batches(min(most, NESTED_ROWS) if nested else most, list(chosen), columns):
        if whole:
            size += sum(map(content, batch.columns))
            if size > max_mb * MB:
                raise FileError(f"more than {max_mb:,} MB when decoded: split it, or raise `data.max_file_mb`")
        yield batch, meter


def _check_declared(
    raw: bytes | mmap.mmap, file: Declared, columns: Sequence[str], max_mb: int, meter: Meter, *, whole: bool
) -> tuple[int, list[str]]:
    """How many rows are decoded at once, and the columns of texts that are read as references.

    Raises FileError for what would need too much memory, wherever a file has its values.
    """
    groups = [[c for c in group if c.path[0] in columns] for group in file.groups]
    values = sum(c.values for group in groups for c in group)
    if whole:
        needed = (file.rows * 4 + values) * PER_VALUE
        if needed > TIMES * max_mb * MB:
            raise FileError(f"{file.rows:,} rows are too many: split it, or raise `data.max_file_mb`")
        check_memory(needed)
    if file.rows > MOST_REPEATED * len(raw) or max(file.rows, values) > max(MANY, MOST_FOR_A_BYTE * len(raw)):
        raise FileError(f"{file.rows:,} rows, {values:,} values in {len(raw):,} bytes: a decompression bomb")
    words = {path[0] for path, leaf in file.leaves.items() if leaf.text and len(path) == 1 and path[0] in columns}
    total, width = 0, 1  # bytes of all pages, and at most of the values of a row outside of lists
    for group in groups:
        found = {chunk: list(pages(raw, chunk.start, chunk.stop, meter)) for chunk in group}
        largest = sum(max((p.unpacked for p in found[chunk]), default=0) for chunk in group)
        total += sum(p.unpacked for chunk in group for p in found[chunk])
        if (unpacked := total if whole else largest) > max_mb * MB:
            raise FileError(too_large(unpacked, max_mb))
        packed = sum(chunk.stop - chunk.start for chunk in group)
        if largest > max(RATIO_FROM, RATIO * packed):
            raise FileError(
                f"its pages unpack to {largest / max(1, packed):,.0f} times their size: a decompression bomb"
            )
        words -= {c.path[0] for c in group if _shares(found[c])}  # which the library does not read as references
        leaves = [(file.leaves[chunk.path], chunk) for chunk in group]
        width = max(width, sum(_width(leaf, c, found[c]) for leaf, c in leaves if not leaf.repeated))
        lists = sum(_of_lists(raw, leaf, c, found[c]) for leaf, c in leaves if leaf.repeated)
        if lists > LISTS:
            raise FileError(
                f"the lists in a group of its rows take {lists / MB:,.0f} MB, but at most {LISTS / MB:,.0f} MB are "
                "decoded at once: write it with fewer rows in a group"
            )
    return max(1, min(ROWS, AT_ONCE // width)), sorted(words)


def _shares(found: Sequence[Page]) -> bool:
    return any(p.encoding == SHARES_PREFIX for p in found)


def _width(leaf: Leaf, chunk: Chunk, found: Sequence[Page]) -> int:
    """Bytes of a decoded value at most: of a text within a structure, which is not a reference, those of a page."""
    fixed = leaf.width is not None and (len(chunk.path) == 1 or not leaf.text)
    if fixed and not _shares(found):
        return leaf.width or 0
    return max((p.unpacked for p in found), default=0)


def _of_lists(raw: bytes | mmap.mmap, leaf: Leaf, chunk: Chunk, found: Sequence[Page]) -> int:
    """Bytes of all decoded values of a column in lists at most, as one row may have all of them.

    Texts that are stored once each do not count unless they are packed so well that few rows may have many.
    """
    values = max(chunk.values, sum(p.values for p in found)) * ((leaf.width or 0) + LEVELS)
    if leaf.width is not None and not leaf.text:
        return values
    once = sum(p.unpacked for p in found if p.encoding not in BY_DICTIONARY)
    shared = sum(p.values * p.unpacked for p in found if p.encoding == SHARES_PREFIX)
    repeated = sum(p.values for p in found if p.encoding in BY_DICTIONARY)
    longest = sum(p.unpacked for p in found if p.dictionary)
    if repeated * longest > LISTS:
        longest = max(longest_text(raw, p, chunk.codec) for p in found if p.dictionary)
    packed = chunk.stop - chunk.start
    return values + repeated * longest + shared + (once if once > LIST_RATIO * packed else 0)
