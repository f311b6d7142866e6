"""Whether the lines of a text are items of a list (names, titles, verses of one line) or the lines of one text."""

from __future__ import annotations

import re
import statistics

FEWEST = 200  # lines of a list
LONGEST, TYPICAL = 500, 60  # characters of the longest line, and of the median
# The line goes on in the next one, as in prose with line ends at a margin and in verse.
CONTINUES = re.compile(r"[ \t][^\s]*[^\W\d_]\r?\n[ \t]*[^\W\d_A-Z]|[,;:(-]\s*\n")
SPEAKER = re.compile(r"^[^\n:]{1,40}: \S", re.MULTILINE)


def may_be_list(text: str) -> bool:
    """Whether the text has many lines, none of them blank or long."""
    lines = text.rstrip().split("\n")
    return len(lines) >= FEWEST and all(0 < len(line.strip()) <= LONGEST for line in lines)


def is_list(text: str) -> bool:
    """Whether it is clear that each line stands for itself.

    The lines are short and most of them differ; few go on in the next one, and few begin with the name of a speaker, as
    those of a conversation do.
    """
    if not may_be_list(text):
        return False
    lines = text.rstrip().split("\n")
    few = len(lines) / 20
    return (
        statistics.median(map(len, lines)) <= TYPICAL
        and 2 * len(set(lines)) >= len(lines)
        and sum(1 for _ in CONTINUES.finditer(text)) <= few
        and sum(1 for _ in SPEAKER.finditer(text)) <= few
    )
