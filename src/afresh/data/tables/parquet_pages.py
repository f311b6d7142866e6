"""What a Parquet file declares: its columns, their parts, and the headers of their pages (parquet.thrift).

The library's own view of these ends the process, by an exception or an overflow of the stack in C++, for some damaged
files; and it allocates what they declare. Therefore they are read here before.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from afresh.data.files import MB, FileError
from afresh.data.limits import Meter

MOST_FOOTER = 32 * MB  # bytes of the description of all columns
MOST_DEPTH = 64  # of columns within columns
# Encodings: by a dictionary (two names of one), and DELTA_BYTE_ARRAY, where a text may begin with all of another.
BY_DICTIONARY, SHARES_PREFIX = (2, 8), 7
WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8}  # bytes of decoded values of the physical types of one width
BYTES, REPEATED, DECIMAL = 6, 2, 5  # a physical type, a repetition, and a converted and logical type
REFERENCE = 4  # bytes that refer to a text among the distinct ones
Fields = dict[int, Any]

# Numbers of fields: of FileMetaData, SchemaElement, RowGroup, ColumnChunk, ColumnMetaData and PageHeader.
SCHEMA, ROW_COUNT, GROUPS = 2, 3, 4
STORED_AS, WIDTH, REPETITION, NAME, CHILDREN, CONVERTED, LOGICAL = 1, 2, 3, 4, 5, 6, 10
CHUNKS = 1
OF_CHUNK = 3
PATH, CODEC, VALUES, UNPACKED, PACKED, FIRST_PAGE, DICTIONARY = 3, 4, 5, 6, 7, 9, 11
PAGE_UNPACKED, PAGE_PACKED, DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_2 = 2, 3, 5, 7, 8
VALUES_IN_PAGE, ENCODING, ENCODING_2 = 1, 2, 4
CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}  # how pages are packed


@dataclass(frozen=True)
class Page:
    """Where a page begins after its header, its bytes as it is stored and unpacked, its values and their encoding, and
    whether it is the dictionary of the others."""

    at: int
    packed: int
    unpacked: int
    values: int
    encoding: int | None
    dictionary: bool


@dataclass(frozen=True)
class Chunk:
    """A part of a column: the path of the column, where its pages begin and end, its values, how it is packed, and the
    bytes that it has when unpacked, if that is true."""

    path: tuple[str, ...]
    start: int
    stop: int
    values: int
    codec: int
    unpacked: int


@dataclass(frozen=True)
class Leaf:
    """A column that has values of its own: bytes of each when decoded (None: they have any length, as of a number in
    digits), whether it holds texts, and whether a row may have several."""

    width: int | None
    text: bool
    repeated: bool


@dataclass(frozen=True)
class Declared:
    """The number of rows, the parts of all columns in each group of rows, and the columns by their paths."""

    rows: int
    groups: list[list[Chunk]]
    leaves: dict[tuple[str, ...], Leaf]


def declared(raw: bytes | mmap.mmap) -> Declared:
    """What the end of a file declares. Raises an exception of Python for damage, and FileError for too much."""
    if raw[-4:] != b"PAR1":
        raise ValueError("its end is missing")
    size = int.from_bytes(raw[-8:-4], "little")
    if size > MOST_FOOTER:
        raise FileError(f"its columns and groups of rows are described in {size / MB:,.0f} MB: write larger groups")
    fields, _ = _structure(raw[max(0, len(raw) - 8 - size) : -8], 0)
    groups = [[_chunk(chunk[OF_CHUNK]) for chunk in group[CHUNKS]] for group in fields[GROUPS]]
    if sum(c.stop - c.start for g in groups for c in g) > len(raw):
        raise FileError("its parts overlap, or are longer than the file")
    return Declared(fields[ROW_COUNT], groups, _leaves(fields[SCHEMA]))


def _chunk(fields: Fields) -> Chunk:
    start = min(fields[FIRST_PAGE], fields.get(DICTIONARY) or fields[FIRST_PAGE])
    if start < 0 or fields[PACKED] < 0 or fields[VALUES] < 0:
        raise ValueError("a part of a negative size")
    path = tuple(p.decode() for p in fields[PATH])
    return Chunk(path, start, start + fields[PACKED], fields[VALUES], fields[CODEC], fields.get(UNPACKED, 0))


def _leaves(elements: list[Fields]) -> dict[tuple[str, ...], Leaf]:
    """The columns by their paths, from a tree in the order of its nodes, the root first."""
    leaves: dict[tuple[str, ...], Leaf] = {}
    path: list[tuple[str, bool]] = []  # names, and whether a row may have several
    left = [elements[0].get(CHILDREN, 0)]  # children that are still to come, of the root and of each part of the path
    for element in elements[1:]:
        while left and left[-1] == 0:
            left.pop()
            del path[-1:]
        if not left or len(left) > MOST_DEPTH:
            raise FileError(f"columns of more than {MOST_DEPTH} levels")
        left[-1] -= 1
        path.append((element[NAME].decode(), element.get(REPETITION) == REPEATED))
        left.append(element.get(CHILDREN, 0))
        if not left[-1]:
            leaves[tuple(name for name, _ in path)] = _leaf(element, any(repeated for _, repeated in path))
    return leaves


def _leaf(element: Fields, repeated: bool) -> Leaf:
    stored = element.get(STORED_AS)
    if stored != BYTES:
        return Leaf(WIDTHS.get(stored or 0, element.get(WIDTH, 0)), False, repeated)
    digits = element.get(CONVERTED) == DECIMAL or DECIMAL in element.get(LOGICAL, {})
    return Leaf(None if digits else REFERENCE, not digits, repeated)


def pages(raw: bytes | mmap.mmap, start: int, stop: int, meter: Meter) -> Iterator[Page]:
    """The pages between two places by their headers, each counted as an item.

    Raises an exception of Python for anything else than pages, and LimitExceeded.
    """
    while start < stop:
        meter.add(items=1)
        fields, after = _structure(raw, start)
        if min(fields[PAGE_UNPACKED], fields[PAGE_PACKED]) < 0:
            raise ValueError("a page of a negative size")
        data, data_2 = fields.get(DATA_PAGE, {}), fields.get(DATA_PAGE_2, {})
        yield Page(
            after,
            fields[PAGE_PACKED],
            fields[PAGE_UNPACKED],
            data.get(VALUES_IN_PAGE, data_2.get(VALUES_IN_PAGE, 0)),
            data.get(ENCODING, data_2.get(ENCODING_2)),
            DICTIONARY_PAGE in fields,
        )
        start = after + fields[PAGE_PACKED]


def longest_text(raw: bytes | mmap.mmap, page: Page, codec: int) -> int:
    """Bytes of the longest text in a dictionary; of the whole page if it is packed in a way that is not known."""
    import pyarrow

    content: Any = raw[page.at : page.at + page.packed]
    if codec:
        if codec not in CODECS:
            return page.unpacked
        content = pyarrow.Codec(CODECS[codec]).decompress(content, page.unpacked, asbytes=True)
    at = longest = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        at, longest = at + 4 + size, max(longest, size)
    return longest


# --------------------------------------------------------------------------- Thrift's compact protocol


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
