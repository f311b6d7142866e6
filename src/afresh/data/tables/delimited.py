"""Fields between separators (CSV, TSV and their relatives), to rows one at a time or to batches of Arrow.

Rows are those of Python's reader, which is strict. Batches are those of Arrow's, which reads ten million events in
seconds and counts the rows that it leaves out.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, BinaryIO, Literal, cast

from afresh.core import Refused
from afresh.data.files import MB, DataFile, FileError, open_plain
from afresh.data.tables.numbers import is_number
from afresh.data.tables.parquet import MOST_COLUMNS

Row = Mapping[str, Any]
Numbered = tuple[int, Row | str]  # a row with its number, from 1, or the reason why it cannot be used
SEPARATORS = (",", "\t", ";", "|")
COLONS = "::"  # MovieLens 1M writes 1::1193::5::978300760
MOST_VALUES = 4_000_000  # of a row, each of which becomes an object
BEGINNING = 65_536  # bytes from which the separator and the header are judged
BLOCK = 8 * MB  # of a text that Arrow parses at once


@dataclass
class Unusable:
    """Rows that could not be read: how many for each reason, and the number of the first of them."""

    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, reason: str, row: int, count: int = 1) -> None:
        """`row`: the number of the first of `count` rows."""
        if count:
            known, first = self.reasons.get(reason, (0, row))
            self.reasons[reason] = known + count, min(first, row)

    def refused(self, file: str) -> list[Refused]:
        """The reasons as refused inputs of a file."""
        return [
            Refused(f"{file}, row {first:,}" + (f" and {count - 1:,} more" if count > 1 else ""), reason)
            for reason, (count, first) in self.reasons.items()
        ]


def separator_of(header: str) -> str:
    """The mark that separates the fields of a header: the one that occurs most, a comma if none does."""
    return max(SEPARATORS, key=header.count)


def too_wide(columns: int) -> str:
    """The reason for refusing a table of so many columns."""
    return f"{columns:,} columns, but at most {MOST_COLUMNS:,} are read: remove those that are not needed"


def too_long(longest: int) -> str:
    """The reason for refusing a row."""
    return f"a line or a row of more than {longest:,} characters, or {MOST_VALUES:,} values"


def check_header(header: Sequence[str]) -> None:
    """Raises FileError if the names of the columns are none, too many, or not distinct."""
    if not any(header):
        raise FileError("no header line: the first line names the columns")
    if len(header) > MOST_COLUMNS:
        raise FileError(too_wide(len(header)))
    if repeated := sorted(h for h, n in Counter(header).items() if n > 1):
        raise FileError(f"the header names {', '.join(map(repr, repeated))} more than once")


def delimited_rows(
    lines: Iterable[str | None], separator: str, *, quoted: bool = True, longest: int | None = None
) -> tuple[list[str], Iterator[Numbered]]:
    """The names of the columns, in the first row, and the other rows; a line may be None for one that is too long.
    `quoted`: fields may stand between quotation marks.

    With `longest`, rows that have more characters or are damaged are left out with their reasons, and reading goes on
    after them. Otherwise a damaged row raises FileError, as does a header that is damaged, too wide or not distinct.
    """
    csv.field_size_limit(min(sys.maxsize, 1 << 31))  # the size of the file or of the row is limited
    left = iter(lines)
    read = size = 0  # lines so far, and characters of the row

    def whole() -> Iterator[str]:
        nonlocal read, size
        for line in left:
            read, size = read + 1, size + len(line or "")
            if line is None or (longest is not None and (size > longest or line.count(separator) > MOST_VALUES)):
                raise csv.Error(too_long(longest or 0))
            yield line

    def new_reader() -> Iterator[list[str]]:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        return csv.reader(whole(), delimiter=separator, quoting=quoting, strict=True)

    def rows(reader: Iterator[list[str]]) -> Iterator[Numbered]:
        nonlocal size
        for number in count(1):
            size = 0
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if longest is None:
                    raise FileError(f"damaged at line {read:,}: {error}") from None
                yield number, f"damaged: {error}"
                reader = new_reader()
                continue
            if fields and len(fields) != len(header):
                yield number, f"{len(fields):,} fields, but the header has {len(header):,}"
            elif fields:
                yield number, dict(zip(header, fields, strict=True))

    reader = new_reader()
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise FileError(f"its header is damaged: {error}") from None
    check_header(header)
    return header, rows(reader)


# --------------------------------------------------------------------------- batches

NamesOf = Callable[[Sequence[str]], Sequence[str] | None]  # of columns of numbers without a header, by the first row


def delimited_batches(file: DataFile, unusable: Unusable, names_of: NamesOf) -> Iterator[Any]:
    """The rows as texts, in batches (pyarrow.RecordBatch). Raises FileError, and what Arrow raises."""
    import pyarrow.csv

    with open_plain(file) as stream:
        beginning = stream.read(BEGINNING)
    encoding = "utf8" if _is_utf8(beginning) else "cp1252"
    lines = beginning.decode(encoding, "replace").lstrip("\ufeff").splitlines()
    if not lines:
        raise FileError("the file is empty")
    double = COLONS in lines[0]
    separator = COLONS if double else separator_of(lines[0])
    header = lines[0].split(COLONS) if double else next(csv.reader([lines[0]], delimiter=separator))
    bare = names_of(header) if all(cell and is_number(cell) for cell in header) else None
    names = list(bare or [n.strip() for n in header])
    check_header(names)

    def skip(row: Any) -> str:
        unusable.add(f"not {row.expected_columns} fields", row.number or 0)
        return "skip"

    with open_plain(file) as stream:
        yield from pyarrow.csv.open_csv(
            _DoubleColons(stream) if double else stream,
            read_options=pyarrow.csv.ReadOptions(
                block_size=BLOCK, column_names=names, skip_rows=0 if bare else 1, encoding=encoding
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\x1f" if double else separator, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={n: pyarrow.string() for n in names}, strings_can_be_null=True, null_values=[""]
            ),
        )


def _is_utf8(raw: bytes) -> bool:
    try:
        raw[: raw.rfind(b"\n") + 1 or len(raw)].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class _DoubleColons:
    """A stream whose fields are separated by one character instead of two colons."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.closed, self.left = cast(BinaryIO, stream), False, b""

    def read(self, size: int = -1) -> bytes:
        raw = self.left + self.stream.read(size)
        cut = len(raw) - 1 if raw.endswith(b":") and len(raw) > 1 else len(raw)
        self.left = raw[cut:]
        return raw[:cut].replace(b"::", b"\x1f")

    def close(self) -> None:
        self.closed = True
