"""The texts in a file: whether its lines are items of a list (names, titles, verses of one line) or the lines of one
text, and documents between separators."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator

FEWEST = 200  # lines of a list
LONGEST, TYPICAL = 500, 60  # characters of the longest line, and of the median
# The line goes on in the next one, as in prose with line ends at a margin and in verse.
CONTINUES = re.compile(r"[ \t][^\s]*[^\W\d_]\r?\n[ \t]*[^\W\d_A-Z]|[,;:(-]\s*\n")
SEPARATOR = "<|endoftext|>"  # a line of its own between the documents of one file
SPEAKER = re.compile(r"^[^\n:]{1,40}: \S", re.MULTILINE)


def may_be_list(text: str) -> bool:
    """Whether the text has many lines, none of them blank or long."""
    count = 0
    for line in lines_of(text):
        if not 0 < len(line.strip()) <= LONGEST:
            return False
        count += 1
    return count >= FEWEST


def is_list(text: str) -> bool:
    """Whether it is clear that each line stands for itself.

    The lines are short and most of them differ; few go on in the next one, and few begin with the name of a speaker, as
    those of a conversation do.
    """
    if not may_be_list(text):
        return False
    lengths = [len(line) for line in lines_of(text)]
    few = len(lengths) / 20
    return (
        statistics.median(lengths) <= TYPICAL
        and 2 * len({hash(line) for line in lines_of(text)}) >= len(lengths)
        and sum(1 for _ in CONTINUES.finditer(text)) <= few
        and sum(1 for _ in SPEAKER.finditer(text)) <= few
    )


def lines_of(text: str) -> Iterator[str]:
    """The lines without white space at the end of the text, one at a time: a list of them would be twice as large as
    the text."""
    start, stop = 0, len(text)
    while stop and text[stop - 1].isspace():
        stop -= 1
    while (end := text.find("\n", start, stop)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:stop]


def separated(text: str) -> list[str]:
    """The documents of a file: what is between lines SEPARATOR; the text itself if it has none."""
    if SEPARATOR not in text:
        return [text]
    documents: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if line.strip() == SEPARATOR:
            documents.append([])
        else:
            documents[-1].append(line)
    return ["".join(d) for d in documents]
