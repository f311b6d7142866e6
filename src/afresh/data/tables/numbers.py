"""Cells of a table as numbers, and the units that some are written with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

LARGEST = 1e300
UNITS = re.compile(r"[<>~≈]?\s*-?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?\s*(?:±.*)?([A-Za-zµμ%°][\w/%µμ°^-]*)")


def as_number(value: Any) -> float | None:
    """The finite number that a cell holds or spells; None if there is none, and for a truth value."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < LARGEST else None  # false for NaN


def is_number(cell: str) -> bool:
    """Whether a cell of a text is a number, or empty."""
    return not cell or is_float(cell)


def is_float(text: str) -> bool:
    """Whether a text is a number, also one that is too large, infinite or NaN."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def units_of(cells: Sequence[Any]) -> list[str]:
    """The units of the cells if most are numbers with a unit, or if some are."""
    texts = [c.strip() for c in cells if isinstance(c, str) and not is_float(c)]
    found = Counter(m[1] for c in texts if (m := UNITS.fullmatch(c)))
    return [u for u, _ in found.most_common(5)] if 4 * sum(found.values()) >= len(cells) else []


def is_missing(value: Any) -> bool:
    """Whether a cell says that there is no value."""
    return (
        value is None or value != value or str(value).strip().lower() in ("", "nan", "na", "n/a", "none", "null", "-")
    )
