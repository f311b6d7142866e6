"""Columns that describe items (from a table beside them) to labels, numbers and captions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from afresh.core import Item, UserError

CAPTIONS = ("text", "caption", "prompt")  # names of a column of captions, the first that is there
MAX_CLASSES = 1_000
MAX_INTEGERS = 100  # different whole numbers that still count as labels
RESERVED = frozenset({"given", *CAPTIONS})  # `Cond` and the caption have these names


@dataclass(frozen=True)
class ColumnValues:
    """What the columns say of each of N items: three lists of length N, and what was not used and why."""

    labels: list[dict[str, str]]
    numbers: list[dict[str, float]]
    captions: list[str | None]
    names: frozenset[str] = frozenset()  # the labels and numbers that came out
    notes: list[str] = field(default_factory=list)


def describe(columns: Mapping[str, Sequence[Any]], n: int, label_column: str | None = None) -> ColumnValues:
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
    out = ColumnValues([{} for _ in range(n)], [{} for _ in range(n)], [None] * n)
    notes: list[str] = []
    taken: set[str] = set()
    lower = {name.lower(): name for name in columns}
    caption = next((lower[c] for c in CAPTIONS if c in lower and lower[c] != label_column), None)
    for name, raw in columns.items():
        values = [_clean(v) for v in raw]
        if name == caption:
            out.captions[:] = [v if isinstance(v, str) else None for v in values]
            other = sum(v is not None and not isinstance(v, str) for v in values)
            if other:
                notes.append(f"column {name!r}: {other:,} values are not text and are no captions")
            continue
        part = "label" if name == label_column else re.sub(r"\W", "_", name.strip()) or "_"
        kind, typed = _as_label(values) if name == label_column else _typed(values, whole=part == "label")
        if name == label_column and typed is None:
            raise UserError(f"Column {name!r} cannot be the label: {kind}. Give another column as label_column.")
        if name != label_column and (part in taken | RESERVED or (part == "label" and label_column is not None)):
            kind, typed = f"another part is named {part!r}", None
        if typed is None:
            notes.append(f"column {name!r} is not used: {kind}")
            continue
        taken.add(part)
        target: list[Any] = out.labels if kind == "label" else out.numbers
        for row, value in enumerate(typed):
            if value is not None:
                target[row][part] = value
    return ColumnValues(out.labels, out.numbers, out.captions, frozenset(taken), notes)


def add_columns(
    items: list[Item], columns: Mapping[str, list[Any]], label_column: str | None
) -> tuple[list[Item], list[str]]:
    """Add what the columns say of each item; a column's label goes before the folder's."""
    said = describe(columns, len(items), label_column)
    notes = list(said.notes)
    by_folder = any(item.labels for item in items)
    if by_folder and "label" in said.names:
        notes.append("the label comes from the metadata; the folders' names are not used")
    out = []
    for item, labels, numbers, caption in zip(items, said.labels, said.numbers, said.captions, strict=True):
        kept = {} if "label" in said.names else dict(item.labels)
        out.append(replace(item, labels=kept | labels, numbers=numbers, caption=caption))
    return out, notes + _missing(out)


def _missing(items: Sequence[Item]) -> list[str]:
    """A note for every part that some items lack."""
    counts = Counter(k for item in items for k in (*item.labels, *item.numbers, *item.images))
    counts["caption"] = sum(item.caption is not None for item in items)
    return [
        f"{name} missing: {len(items) - n:,} of {len(items):,} items, trained with the condition left out"
        for name, n in sorted(counts.items())
        if 0 < n < len(items)
    ]


Typed = tuple[str, list[Any] | None]  # ("label" or "number", values), or (the reason why neither, None)


def _clean(value: Any) -> Any:
    """None for what is missing: None, an empty string, a float that is not finite."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _typed(values: Sequence[Any], whole: bool) -> Typed:
    """What a column holds by its values: few different ones are labels, other numbers are numbers.

    `whole`: its name says that it is a label, so whole numbers are, however many there are.
    """
    there = [v for v in values if v is not None]
    numbers = [_number(v) for v in values]  # a CSV gives its numbers as text
    if there and sum(v is not None for v in numbers) == len(there):
        distinct = {v for v in numbers if v is not None}
        few = whole or len(distinct) <= max(2, min(MAX_INTEGERS, len(there) // 2))
        if not (few and all(isinstance(v, int) for v in distinct)) and len(distinct) > 1:
            return "number", [None if v is None else float(v) for v in numbers]
    return _as_label(values, MAX_CLASSES if whole else len(there) // 2)


def _as_label(values: Sequence[Any], most: int = MAX_CLASSES) -> Typed:
    """A column as labels, if it has 2 to `most` different values (two are always allowed)."""
    there = [v for v in values if v is not None]
    if not there:
        return "it is empty", None
    if not all(isinstance(v, (str, bool, int, float)) for v in there):
        return "it holds something other than text, numbers and true or false", None
    names = [None if v is None else str(v) for v in values]
    if {n.lower() for n in names if n} <= {"true", "false"}:  # Python, JSON and spreadsheets differ in the capitals
        names = [n and n.lower() for n in names]
    distinct = {n for n in names if n is not None}
    if len(distinct) < 2:
        return f"its one value is {next(iter(distinct))!r}", None
    if len(distinct) > max(2, min(most, MAX_CLASSES)):
        return f"it has {len(distinct):,} different values for {len(there):,} items, too many for a label", None
    return "label", names


def _number(value: Any) -> int | float | None:
    """A number, or text that is one; None for anything else and for what is not finite."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if not isinstance(value, str):
        return value
    try:
        return int(value) if re.fullmatch(r"[-+]?\d{1,18}", value) else _finite(float(value.replace("_", "x")))
    except ValueError:
        return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
