"""Large files of text in stretches that are read alone, so that texts larger than memory can be read in any order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from afresh.data.files import MB, DataFile, FileError, open_file, unpacked
from afresh.data.limits import parsing
from afresh.data.tables.parquet import group_sizes
from afresh.data.text.lists import SEPARATOR

SPAN = MB // 2  # bytes of a stretch of a large file, or more if there would be more stretches than MOST_SPANS
MOST_SPANS = 1 << 18
WHOLE = 64 * MB  # bytes of files that can only be read as a whole
LONGEST = 16 * MB  # bytes of a line, or of a document between separators
DIVISIBLE = "unpack it, or write it as JSON lines or Parquet"
BLOCK = MB // 16
HEAD = MB  # bytes in which separators are looked for
LINES = frozenset({".jsonl", ".ndjson"})  # of which each line is a row
LINE, SPACE = re.compile(rb"\n"), re.compile(rb"[ \t]")
BETWEEN = re.compile(rb"(?:^|\n)[ \t\r]*" + re.escape(SEPARATOR.encode()) + rb"[ \t\r]*(?:\n|$)")
MARGIN = 64  # bytes before a place in which a separator may begin that ends after it
WIDE = (b"\xff\xfe", b"\xfe\xff")  # how UTF-16 and UTF-32 begin, whose line ends cannot be found in bytes


@dataclass(frozen=True)
class Span:
    """A file, or a stretch of it: the documents that begin in its bytes `start` to `stop`, or groups of its rows.

    `size`: about how many bytes it has when unpacked. `separated`: whether documents of a file of text end at lines
    SEPARATOR.
    """

    file: DataFile
    size: int
    start: int = 0
    stop: int | None = None
    groups: tuple[int, ...] = ()
    separated: bool = False

    @property
    def whole(self) -> bool:
        return self.stop is None and not self.groups


def spans_of(files: Sequence[DataFile], prose: frozenset[str]) -> list[Span]:
    """The stretches of all files in their order. Files of the suffixes `prose` are plain text.

    Raises FileError, naming the file, for one that is too large and can only be read as a whole, and for a Parquet file
    whose end is missing.
    """
    size = max(SPAN, sum(f.size for f in files) // MOST_SPANS)
    return [span for file in files for span in _of_file(file, size, prose)]


def _of_file(file: DataFile, size: int, prose: frozenset[str]) -> Iterator[Span]:
    try:
        if file.suffix == ".parquet":
            yield from _of_groups(file, size)
        elif file.size <= size or (file.suffix not in prose | LINES and file.size <= WHOLE):
            yield Span(file, file.size)
        elif file.suffix in prose | LINES:
            separated = file.suffix in prose and _is_separated(file)
            for start in range(0, file.size, size):
                stop = min(start + size, file.size)
                yield Span(file, stop - start, start, stop, separated=separated)
        else:
            raise FileError(
                f"it has {file.size / MB:,.0f} MB and is read as a whole, which files of at most {WHOLE // MB} MB are: "
                f"{DIVISIBLE}"
            )
    except FileError as error:
        raise FileError(f"{file.path}: {error}") from None


def _of_groups(file: DataFile, size: int) -> Iterator[Span]:
    groups: list[int] = []
    total = 0
    for number, bytes_of_group in enumerate(group_sizes(file)):
        groups, total = [*groups, number], total + bytes_of_group
        if total >= size:
            yield Span(file, total, groups=tuple(groups))
            groups, total = [], 0
    if groups:
        yield Span(file, total, groups=tuple(groups))


def _is_separated(file: DataFile) -> bool:
    with open_file(file) as stream:
        head = stream.read(HEAD)
    if head.startswith(WIDE):
        raise FileError("it is UTF-16 or UTF-32: convert it to UTF-8, for example by iconv")
    return BETWEEN.search(head) is not None


def read_span(span: Span) -> bytes:
    """The content of a file, or of the lines or documents that begin in its stretch.

    Raises FileError if the file has another size than when it was found, or a line or document that is too long.
    """
    with open_file(span.file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != span.file.size:
            raise FileError(f"it had {span.file.size:,} bytes and has {size:,} now: restore it")
        if span.stop is None:
            with parsing("file"), unpacked(stream, span.file.suffix) as plain:
                content = plain.read(WHOLE + 1)
            if len(content) > WHOLE:
                raise FileError(f"more than {WHOLE // MB} MB when unpacked: {DIVISIBLE}")
            return content
        border = BETWEEN if span.separated else LINE
        divisible = not span.separated and span.file.suffix not in LINES
        start, stop = (_border(stream, place, size, border, divisible) for place in (span.start, span.stop))
        stream.seek(start)
        return stream.read(stop - start)


def _border(stream: IO[bytes], place: int, size: int, border: re.Pattern[bytes], divisible: bool) -> int:
    """The first place from `place` on at which a line or document begins: 0, after a border, or the end. Plain text
    (`divisible`) without a line end nearby is divided between words."""
    if place in (0, size):
        return place
    begin = max(0, place - MARGIN)
    stream.seek(begin)
    content = b""
    while len(content) <= LONGEST:
        block = stream.read(BLOCK)
        if not block:
            return size
        searched = max(0, len(content) - MARGIN)
        content += block
        for pattern in (border, SPACE) if divisible else (border,):
            for found in pattern.finditer(content, searched):
                if begin + found.end() >= place and (found.end() < len(content) or len(block) < BLOCK):
                    return begin + found.end()
    raise FileError(f"more than {LONGEST / MB:,.0f} MB without a line end or separator after byte {place:,}: divide it")
