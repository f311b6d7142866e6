"""Numbers, sizes and ages in messages."""

from __future__ import annotations

import re

THINGS = "item|image|text|file|row|step|character|word|user|column|pair|molecule|sound|event|minute|token|byte|sample"
ONE = re.compile(rf"(?<![\d.,/])(?<!of )\b1 ({THINGS})s\b(?: (are|have|were|do)\b)?")
AGREEING = {"are": " is", "have": " has", "were": " was", "do": " does", None: ""}


def counted(n: int, singular: str, plural: str = "") -> str:
    """n things in words: `1 step`, `2 steps`, `1,006 steps`. The plural is the singular with an s unless given."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def singular(text: str) -> str:
    """A message whose nouns and verbs agree with 1, whatever number they were written for: `1 files are` is `1 file
    is`."""
    return ONE.sub(lambda found: f"1 {found[1]}{AGREEING[found[2]]}", text)


def digits(value: float | None) -> str:
    """Four significant digits; a dash for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def size(count: float) -> str:
    """Bytes in a unit that a person reads."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.3g} {unit}"
    return f"{count:.0f} bytes"


def age(seconds: float) -> str:
    """Seconds in the largest unit that fits."""
    for length, word in ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            return counted(int(seconds // length), word)
    return "just now"
