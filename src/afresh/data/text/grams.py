"""n-grams of characters: how like two texts are, in any script."""

from __future__ import annotations

from collections import Counter

GRAM = 3  # characters
BEGIN, END = "\x02", "\x03"


def grams(text: str) -> Counter[str]:
    """How often each n-gram of characters occurs, with marks at both ends: no text is without any."""
    marked = BEGIN * (GRAM - 1) + text + END * (GRAM - 1)
    return Counter(marked[i : i + GRAM] for i in range(len(marked) - GRAM + 1))


def cosine(a: Counter[str], b: Counter[str]) -> float:
    """Of two vectors of counts: 1 in the same direction, 0 with nothing in common (Damashek 1995)."""
    squares = sum(v * v for v in a.values()) * sum(v * v for v in b.values())
    return float(sum(v * b[k] for k, v in a.items() if k in b) / squares**0.5)
