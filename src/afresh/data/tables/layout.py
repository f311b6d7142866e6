"""How a file of fields is laid out: its encoding, its separator, and what stands above its rows.

Programs write more than a table into such a file: the name of a report above the names of the columns, units below
them, separators at the end of every line. All readers of delimited files ask here.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from afresh.data.files import FileError, decode_text
from afresh.data.tables.numbers import is_number
from afresh.data.tables.parquet import MOST_COLUMNS
from afresh.data.tables.spelling import is_date, is_written_number
from afresh.data.text.encodings import MARKED, SAMPLE, guess_encoding

SEPARATORS = (",", "\t", ";", "|")
COLONS = "::"  # MovieLens 1M writes 1::1193::5::978300760
UTF8 = "utf-8-sig"
BEGINNING = 65_536  # bytes or characters from which a layout is judged
LOOKED_AT, ABOVE = 200, 30  # records that are looked at, and above which the names of the columns may stand
UNIT = re.compile(r"[\[(]?[%‰°µμΩ€$£A-Za-z][\w/%°µμΩ^²³·*().\s-]{0,15}[\])]?")
RULE = re.compile(r"[\s|+:=_*-]*[-=_*]{3}[\s|+:=_*-]*")  # a line that is drawn, as ----- or |-----|

NamesOf = Callable[[Sequence[str]], Sequence[str] | None]  # of columns of numbers without a header, by the first row


@dataclass(frozen=True)
class Layout:
    """How the fields of a file are separated, and where they begin.

    `names` of all fields, of which `kept` are the columns; the others have neither a name nor values. `lines` and
    `characters` stand before the first row, of these `above` before the names; `units` of columns stand below them.
    """

    separator: str
    names: tuple[str, ...]
    kept: tuple[str, ...]
    lines: int
    characters: int
    above: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def drops(self) -> bool:
        """Whether there are fields without a name and values."""
        return len(self.kept) < len(self.names)

    @property
    def notes(self) -> list[str]:
        """What stands in the file beside its table."""
        out = []
        if self.above:
            shown = ", ".join(repr(line[:60]) for line in self.above[:3]) + (", ..." if len(self.above) > 3 else "")
            count = f"{len(self.above)} lines stand" if len(self.above) > 1 else "1 line stands"
            out.append(f"{count} above the names of the columns and not in the table: {shown}")
        if self.units:
            out.append(f"the line below the names has units: {', '.join(f'{n} in {u}' for n, u in self.units.items())}")
        return out


@dataclass(frozen=True)
class _Record:
    """One record of a file: its fields, and how many lines and characters the file has up to its end."""

    fields: list[str]
    lines: int
    characters: int

    @property
    def filled(self) -> int:
        return sum(1 for f in self.fields if f)


def encoding_of(beginning: bytes) -> str:
    """The encoding of a table by its first bytes: by its mark, UTF-8, or one that is guessed."""
    marked = next((encoding for mark, encoding in MARKED.items() if beginning.startswith(mark)), None)
    if marked is not None:
        return marked
    whole = beginning[: beginning.rfind(b"\n") + 1 or len(beginning)]
    try:
        whole.decode("utf-8")
        return UTF8
    except UnicodeDecodeError:
        return guess_encoding(whole) or "cp1252"


def decode_table(raw: bytes) -> str:
    """The text of a table. Raises FileError if it is not text."""
    encoding = encoding_of(raw[:SAMPLE])
    if encoding == UTF8:
        return decode_text(raw)
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        raise FileError(f"not text in {encoding}, as which it begins: {error}. Convert it to UTF-8") from None


def layout_of(
    beginning: str, separator: str = "", quoted: bool = True, names_of: NamesOf = lambda first: None
) -> Layout:
    """The layout of a file by its first lines. `separator`: one that is given. `names_of`: the names of the columns of
    a file that has no header but numbers, by its first row. Raises FileError if there is no header."""
    first = next(io.StringIO(beginning, newline=""), "")
    if not separator and COLONS in first:
        separator = COLONS
    widest = max(first.count(mark) for mark in (separator, *SEPARATORS) if mark)
    if widest >= MOST_COLUMNS:
        raise FileError(too_wide(widest + 1))
    if separator:
        return _laid_out(_records(beginning, separator, quoted), separator, names_of)
    usual = max(SEPARATORS, key=first.count)
    best, most = None, (0.0, 0.0)
    for mark in sorted(SEPARATORS, key=lambda mark: mark != usual):
        records = _records(beginning, mark, quoted)
        at = _header(records)
        width = len(records[at].fields) if records else 0
        below = records[at + 1 :]
        alike = sum(len(r.fields) == width for r in below) / len(below) if below else 1.0
        rank = (alike * len(records[at:]) / max(1, len(records)), 1.0 if mark == usual else 0.0)
        if width > 1 and rank > most:
            best, most = (records, mark), rank
    records, mark = best or (_records(beginning, ",", quoted), ",")
    return _laid_out(records, mark, names_of)


def too_wide(columns: int) -> str:
    """The reason for refusing a table of so many columns."""
    return f"{columns:,} columns, but at most {MOST_COLUMNS:,} are read: remove those that are not needed"


def check_header(header: Sequence[str]) -> None:
    """Raises FileError if the names of the columns are none, too many, or not distinct."""
    if not any(header):
        raise FileError("no header line: the first line names the columns")
    if len(header) > MOST_COLUMNS:
        raise FileError(too_wide(len(header)))
    if repeated := sorted(h for h, n in Counter(header).items() if n > 1):
        raise FileError(f"the header names {', '.join(map(repr, repeated))} more than once")


def _records(text: str, separator: str, quoted: bool) -> list[_Record]:
    """The first records that are not blank. One that is damaged ends them."""
    lines = characters = 0

    def counted() -> Iterator[str]:
        nonlocal lines, characters
        for line in io.StringIO(text, newline=""):
            lines, characters = lines + 1, characters + len(line)
            yield line

    if separator == COLONS:
        reader: Iterator[list[str]] = (line.rstrip("\r\n").split(COLONS) for line in counted())
    else:
        reader = csv.reader(counted(), delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    out: list[_Record] = []
    try:
        for fields in islice(reader, LOOKED_AT + ABOVE):
            fields = [f.strip() for f in fields]
            if any(fields):
                out.append(_Record(fields, lines, characters))
    except csv.Error as error:
        if not out:
            raise FileError(f"its header is damaged: {error}") from None
    return out


def _header(records: Sequence[_Record]) -> int:
    """Which record names the columns: the first, unless it is none and a later one stands over numbers or dates."""
    width = _usual_width(records)
    if not records or _names_columns(records, 0, width):
        return 0
    if all(map(is_number, records[0].fields)):
        return 0
    later = range(1, min(ABOVE, len(records) - 1))
    return next((i for i in later if _names_columns(records, i, width) and _stands_over_values(records, i)), 0)


def _usual_width(records: Sequence[_Record]) -> int:
    widths = Counter(len(r.fields) for r in records)
    return max(widths, key=lambda w: (widths[w], w), default=0)


def _names_columns(records: Sequence[_Record], at: int, width: int) -> bool:
    """Whether a record has a name for every column of the usual width that has values; the first may have none."""
    fields = records[at].fields
    if not width - 1 <= len(fields) <= width or not any(fields):
        return False
    below = records[at + 1 : at + 50]
    nameless = [i for i in range(1, width) if i >= len(fields) or not fields[i]]
    return not any(i < len(r.fields) and r.fields[i] for r in below for i in nameless)


def _stands_over_values(records: Sequence[_Record], at: int) -> bool:
    """Whether a record of distinct words stands over a column of numbers or dates."""
    names = [f for f in records[at].fields if f]
    if len(set(names)) < len(names) or any(is_written_number(n) or is_date(n) for n in names):
        return False
    width = len(records[at].fields)
    below = [r.fields for r in records[at + 1 : at + 50] if width <= len(r.fields)]
    columns = ([row[i] for row in below if row[i]] for i in range(width))
    return any(2 * sum(is_written_number(c) or is_date(c) for c in cells) > len(cells) for cells in columns)


def _laid_out(records: Sequence[_Record], separator: str, names_of: NamesOf) -> Layout:
    if not records:
        raise FileError("no header line: the first line names the columns")
    first = records[0].fields
    if all(cell and is_number(cell) for cell in first) and (bare := names_of(first)):
        return Layout(separator, tuple(bare), tuple(bare), 0, 0)
    at = _header(records)
    header, rows = records[at], records[at + 1 :]
    width = max(len(header.fields), _usual_width(rows) if _usual_width(rows) == len(header.fields) + 1 else 0)
    if width > len(header.fields) and any(len(r.fields) == width and r.fields[-1] for r in rows):
        width = len(header.fields)
    fields = header.fields + [""] * (width - len(header.fields))
    of_width = [r.fields for r in rows if len(r.fields) == width]
    empty = [not name and all(not row[i] for row in of_width) for i, name in enumerate(fields)]
    names = [n or (f"column {i + 1}" if i or empty[i] else "") for i, n in enumerate(fields)]
    check_header(names if any(fields) else [])
    units = _units(names, [r for r in rows if not RULE.fullmatch("".join(r.fields))], width)
    last = next(r for r in rows if len(r.fields) == width) if units else header
    return Layout(
        separator,
        tuple(names),
        tuple(n for n, gone in zip(names, empty, strict=True) if not gone),
        last.lines,
        last.characters,
        tuple(" ".join(f for f in r.fields if f) for r in records[:at] if not RULE.fullmatch("".join(r.fields))),
        units,
    )


def _units(names: Sequence[str], rows: Sequence[_Record], width: int) -> dict[str, str]:
    """The units of columns if the first row has them: words over every column of numbers, and nothing elsewhere."""
    table = [r.fields for r in rows if len(r.fields) == width]
    if len(table) < 3:
        return {}
    first, below = table[0], table[1:]
    out = {}
    for i, name in enumerate(names):
        cells = [row[i] for row in below if row[i]]
        if cells and 10 * sum(map(is_written_number, cells)) >= 9 * len(cells):
            if is_written_number(first[i]) or is_date(first[i]):
                return {}
            if UNIT.fullmatch(first[i]):
                out[name] = first[i].strip("[]()")
        elif first[i] not in ("", "-"):
            return {}
    return out
