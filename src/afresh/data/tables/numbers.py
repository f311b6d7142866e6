"""Cells of a table as numbers, and the units that some are written with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LARGEST = 1e300
UNITS = re.compile(r"[<>~≈]?\s*-?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?\s*(?:±.*)?([A-Za-zµμ%°][\w/%µμ°^-]*)")


def as_number(value: Any) -> float | None:
    """The finite number that a cell holds or spells; None without one, and for a truth value."""
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
    """Whether a cell stands for a missing value."""
    return (
        value is None or value != value or str(value).strip().lower() in ("", "nan", "na", "n/a", "none", "null", "-")
    )


def id_of(value: Any) -> str:
    """An id as text: 17, 17.0 and "17" are one. Empty if it is missing."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


# --------------------------------------------------------------------------- columns of Arrow


def numbers_of(column: Any) -> Floats:
    """The numbers of a column of any type, NaN where none exists."""
    import pyarrow

    if pyarrow.types.is_boolean(column.type):
        column = column.cast(pyarrow.int8())
    numbers = numbers_of_texts(column)
    if numbers is None:
        numbers = np.array([np.nan if (n := as_number(v)) is None else n for v in column.to_pylist()], np.float64)
    return numbers


def numbers_of_texts(column: Any) -> Floats | None:
    """The numbers in a column of texts, NaN where nothing is; None if it is another column, or holds other texts."""
    import pyarrow

    if not pyarrow.types.is_string(column.type):
        return None
    try:
        numbers: Floats = column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
    except pyarrow.ArrowInvalid:
        return None
    return numbers


def values_of(column: Any) -> Any:
    """The values of a column as an array if they are numbers or times, in seconds since 1970, otherwise as a list."""
    import pyarrow

    if pyarrow.types.is_timestamp(column.type) or pyarrow.types.is_date(column.type):
        whole = column.cast(pyarrow.timestamp("us", getattr(column.type, "tz", None))).cast(pyarrow.int64())
        return np.where(column.is_valid().to_numpy(zero_copy_only=False), whole.fill_null(0).to_numpy() / 1e6, np.nan)
    if pyarrow.types.is_floating(column.type) or pyarrow.types.is_integer(column.type):
        return column.to_numpy(zero_copy_only=False)
    return column.to_pylist()
