"""Numbers in messages."""

from __future__ import annotations


def counted(n: int, singular: str, plural: str = "") -> str:
    """n things in words: `1 step`, `2 steps`, `1,006 steps`. The plural is the singular with an s unless given."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def digits(value: float | None) -> str:
    """Four significant digits; a dash for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
