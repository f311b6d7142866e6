"""Fields between separators (CSV, TSV and their relatives), to rows one at a time or to batches of Arrow.

Rows are those of Python's reader, which is strict. Batches are those of Arrow's, which reads ten million events in
seconds and counts the rows that it leaves out.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import IO, Any, Literal

from afresh.core import Refused
from afresh.data.files import MB, FileError
from afresh.data.tables.layout import BEGINNING, COLONS, RULE, UTF8, Layout, NamesOf, encoding_of, layout_of

Row = Mapping[str, Any]
Numbered = tuple[int, Row | str]  # a row with its number, from 1, or the reason why it cannot be used
MOST_VALUES = 4_000_000  # of a row, each of which becomes an object
BLOCK = 8 * MB  # of a text that Arrow parses at once
INVALID = re.compile(r"[\udc80-\udcff]")  # bytes that are not UTF-8
DRAWN = "a line that is drawn, and no row"


@dataclass
class Unusable:
    """Rows that could not be read: how many for each reason, and the number of the first of them. `notes`: what else is
    to be said of the table. `separator`: of its fields, if it has one."""

    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    separator: str = ""

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


def too_long(longest: int) -> str:
    """The reason for refusing a row."""
    return f"a line or a row of more than {longest:,} characters, or {MOST_VALUES:,} values"


def beginning_of(lines: Iterator[str | None]) -> list[str | None]:
    """The first lines, from which a layout is judged; None for one that is too long."""
    out: list[str | None] = []
    size = 0
    while size < BEGINNING and (line := next(lines, "")) != "":
        out.append(line)
        size += len(line or "")
    return out


def delimited_rows(
    lines: Iterable[str | None], separator: str = "", *, quoted: bool = True, longest: int | None = None
) -> tuple[Layout, Iterator[Numbered]]:
    """How the fields are laid out, and the rows; a line may be None for one that is too long. `separator`: one that is
    given. `quoted`: fields may stand between quotation marks.

    With `longest`, rows that have more characters or are damaged are left out with their reasons, and reading goes on
    after them. Otherwise a damaged row raises FileError, as does a header that is damaged, too wide or not distinct.
    """
    csv.field_size_limit(min(sys.maxsize, 1 << 31))  # the size of the file or of the row is limited
    left = iter(lines)
    beginning = beginning_of(left)
    if beginning[:1] == [None]:
        raise FileError(f"its header is damaged: {too_long(longest or 0)}")
    layout = layout_of("".join(line or "\n" for line in beginning), separator, quoted)
    left = chain(beginning[layout.lines :], left)
    read = layout.lines  # lines so far
    size = 0  # characters of the row

    def whole() -> Iterator[str]:
        nonlocal read, size
        for line in left:
            read, size = read + 1, size + len(line or "")
            if line is None or (longest is not None and (size > longest or line.count(layout.separator) > MOST_VALUES)):
                raise csv.Error(too_long(longest or 0))
            yield line

    def new_reader() -> Iterator[list[str]]:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        return csv.reader(whole(), delimiter=layout.separator, quoting=quoting, strict=True)

    def rows() -> Iterator[Numbered]:
        nonlocal size
        reader = new_reader()
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
            if fields and len(fields) != len(layout.names):
                yield number, not_a_row(fields, len(layout.names))
            elif fields:
                row = dict(zip(layout.names, fields, strict=True))
                yield number, {name: row[name] for name in layout.kept} if layout.drops else row

    return layout, rows()


def not_a_row(fields: Sequence[str], columns: int) -> str:
    """The reason why a line with another number of fields than the header is not a row."""
    if RULE.fullmatch("".join(fields)):
        return DRAWN
    return f"{len(fields):,} fields, but the header has {columns:,}"


# --------------------------------------------------------------------------- batches


def delimited_batches(
    open_table: Callable[[], IO[bytes]], unusable: Unusable, names_of: NamesOf, separator: str = ""
) -> Iterator[Any]:
    """The rows as texts, in batches (pyarrow.RecordBatch). `separator`: one that is given. Raises FileError, and what
    Arrow raises."""
    import pyarrow.csv

    with open_table() as stream:
        beginning = stream.read(BEGINNING)
        while not beginning.endswith(b"\n") and len(beginning) < BLOCK and (more := stream.readline(BLOCK)):
            beginning += more
    if not beginning:
        raise FileError("the file is empty")
    encoding = encoding_of(beginning)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(beginning)
    layout = layout_of(text, separator, names_of=names_of)
    unusable.separator = layout.separator
    unusable.notes += [*([] if encoding == UTF8 else [f"it is not UTF-8 and read as {encoding}"]), *layout.notes]

    def skip(row: Any) -> str:
        reason = DRAWN if RULE.fullmatch(row.text) else f"not {row.expected_columns} fields"
        unusable.add(reason, row.number or 0)
        return "skip"

    with open_table() as stream:
        rows = _Rows(stream, encoding, layout)
        if not rows.ready:
            return
        for batch in pyarrow.csv.open_csv(
            rows,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK, column_names=layout.names),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=rows.separator, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={n: pyarrow.string() for n in layout.names}, strings_can_be_null=True, null_values=[""]
            ),
        ):
            yield batch.select(list(layout.kept)) if layout.drops else batch
    if rows.odd:
        unusable.notes.append(f"{rows.odd:,} bytes are not UTF-8 and read as cp1252")


class _Rows:
    """A stream of the rows of a table in UTF-8, without what stands above them, whose fields are separated by one
    character."""

    def __init__(self, stream: IO[bytes], encoding: str, layout: Layout) -> None:
        errors = "surrogateescape" if encoding == UTF8 else "replace"
        self.text = io.TextIOWrapper(stream, encoding, errors, newline="")
        self.text.read(layout.characters)
        self.closed, self.odd = False, 0
        self.colons = layout.separator == COLONS
        self.separator = "\x1f" if self.colons else layout.separator
        self.ready = self._more()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, which may be fewer, and none at the end."""
        out, self.ready = self.ready[:size], self.ready[size:] or self._more()
        return out

    def _more(self) -> bytes:
        text = self.text.read(BLOCK)
        while self.colons and text.endswith(":") and (more := self.text.read(1)):  # it may be the first of a pair
            text += more
        text = text.replace(COLONS, self.separator) if self.colons else text
        try:
            return text.encode()
        except UnicodeEncodeError:  # bytes that are not UTF-8 become the characters that they most often are
            self.odd += len(INVALID.findall(text))
            return INVALID.sub(lambda m: bytes([ord(m[0]) - 0xDC00]).decode("cp1252", "replace"), text).encode()

    def close(self) -> None:
        self.closed = True
