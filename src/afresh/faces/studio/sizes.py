"""Sizes and ages in words."""

from __future__ import annotations


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
            count = int(seconds // length)
            return f"{count} {word}{'' if count == 1 else 's'}"
    return "just now"
