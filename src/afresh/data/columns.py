"""Columns that describe items (from a table beside them) to labels, numbers and captions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from afresh.core import UserError

CAPTIONS = ("text", "caption", "prompt")  # names of a column of captions, the first that is there
MAX_CLASSES = 1_000
RESERVED = {"given"}  # a name that `Cond` uses itself


@dataclass(frozen=True)
class Described:
    """What the columns say of each of N items: three lists of length N, and what was not used and why."""

    labels: list[dict[str, str]]
    numbers: list[dict[str, float]]
    captions: list[str | None]
    names: frozenset[str] = frozenset()  # the labels and numbers that came out
    notes: list[str] = field(default_factory=list)


def describe(columns: Mapping[str, Sequence[Any]], n: int, label_column: str | None = None) -> Described:
    """Sort columns of n values (None or "" = missing) by what they hold.

    Strings, booleans and integers of few values become labels, other numbers numbers, and a column called
    text, caption or prompt the caption. `label_column` becomes the label "label".

    Raises UserError when `label_column` is not there or cannot be a label.
    """
    if label_column is not None and label_column not in columns:
        raise UserError(
            f"There is no column {label_column!r} to take labels from. "
            f"Columns found: {', '.join(columns) or 'none'}. Give one of these as label_column, or leave it out."
        )
    out = Described([{} for _ in range(n)], [{} for _ in range(n)], [None] * n)
    notes: list[str] = []
    taken: set[str] = set()
    lower = {name.lower(): name for name in columns}
    caption = next((lower[c] for c in CAPTIONS if c in lower and lower[c] != label_column), None)
    for name, raw in columns.items():
        values = [_clean(v) for v in raw]
        if name == caption:
            out.captions[:] = [None if v is None else str(v) for v in values]
            continue
        part = "label" if name == label_column else re.sub(r"\W", "_", name.strip()) or "_"
        if name != label_column and part == "label" and label_column is not None:
            notes.append(f"column {name!r} is not used: column {label_column!r} is the label")
            continue
        if part in taken or part in RESERVED or part.lower() in CAPTIONS:
            notes.append(f"column {name!r} is not used: its name is taken")
            continue
        typed, reason = _typed(values, wanted=name == label_column)
        if reason is not None:
            if name == label_column:
                raise UserError(f"Column {name!r} cannot be the label: {reason}. Give another column as label_column.")
            notes.append(f"column {name!r} is not used: {reason}")
            continue
        taken.add(part)
        for row, value in enumerate(typed):
            if isinstance(value, str):
                out.labels[row][part] = value
            elif value is not None:
                out.numbers[row][part] = value
    return Described(out.labels, out.numbers, out.captions, frozenset(taken), notes)


def _clean(value: Any) -> Any:
    """None for what is missing: None, an empty string, a float that is no number."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _typed(values: Sequence[Any], wanted: bool) -> tuple[list[str | float | None], str | None]:
    """All str (labels) or all float (numbers), with None where missing; or the reason why neither.

    Text that is all numbers (as everything in a CSV is text) counts as numbers. `wanted`: labels at any price.
    """
    there = [v for v in values if v is not None]
    if not there:
        return [], "it is empty"
    if not all(isinstance(v, (str, bool, int, float)) for v in there):
        return [], "it holds something other than text, numbers and yes or no"
    if all(isinstance(v, str) for v in there) and not wanted:
        number = [_number(v) for v in there]
        if all(v is not None for v in number):
            filled = iter(number)
            values = [None if v is None else next(filled) for v in values]
            there = number
            if not all(math.isfinite(v) for v in number if v is not None):
                return [], "some of its numbers are not finite"
    names = [None if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in values]
    distinct = set(names) - {None}
    if any(isinstance(v, float) for v in there) and not wanted:
        if not all(isinstance(v, (int, float)) for v in there):
            return [], "it mixes text and numbers"
        return (
            ([], "it has one value") if len(distinct) < 2 else ([None if v is None else float(v) for v in values], None)
        )
    if len(distinct) < 2:
        return [], f"it has one value ({next(iter(distinct))})"
    few = min(MAX_CLASSES, max(2, len(there) // 2))
    if len(distinct) > few:
        if all(isinstance(v, int) for v in there) and not wanted:
            return [None if v is None else float(v) for v in values], None
        if not wanted or len(distinct) > MAX_CLASSES:
            return [], f"it has {len(distinct):,} different values for {len(there):,} items, too many for a label"
    return list(names), None


def _number(text: str) -> int | float | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None
