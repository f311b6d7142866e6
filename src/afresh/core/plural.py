"""Numbers of things in messages."""

from __future__ import annotations


def counted(n: int, singular: str, plural: str = "") -> str:
    """n things in words: `1 step`, `2 steps`, `1,006 steps`. The plural is the singular with an s unless given."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"
