"""Metadata columns to the labels, numbers and captions of items."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field

from afresh.core import Item, Omission, UserError
from afresh.data.tables.numbers import LARGEST, as_number

CAPTIONS = ("text", "caption", "prompt")  # names of a caption column, in order of preference
MAX_CLASSES = 1_000
MAX_INTEGERS = 100  # a column with more distinct integers is a number, not a label
RESERVED = frozenset({"given", *CAPTIONS})  # names of tensors in conditions.safetensors, and of captions

LabelColumn = Annotated[str | None, Field(description='the metadata column that becomes the label "label"')]


@dataclass(frozen=True)
class ColumnValues:
    """Labels, numbers and captions of N items (three lists of length N), and notes on columns that were not used."""

    labels: list[dict[str, str]]
    numbers: list[dict[str, float]]
    captions: list[str | None]
    names: frozenset[str] = frozenset()  # of the labels and numbers
    notes: list[str] = field(default_factory=list)


def describe(columns: Mapping[str, Sequence[Any]], n: int, label_column: str | None = None) -> ColumnValues:
    """Classify columns of n values each (None or "" = missing) as labels, numbers or captions.

    Strings, booleans and integers with few distinct values become labels, other numbers become numbers, and a column
    named text, caption or prompt becomes the caption. `label_column` becomes the label "label".

    Raises UserError if `label_column` does not exist or cannot be a label.
    """
    if label_column is not None and label_column not in columns:
        raise UserError(
            f"No column {label_column!r} to take labels from. "
            f"Columns found: {', '.join(columns) or 'none'}. Set `data.label_column` to one of these, or omit it."
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
                notes.append(Omission(f"column {name!r}: {other:,} values are not text and are not used as captions"))
            continue
        part = "label" if name == label_column else re.sub(r"\W", "_", name.strip()) or "_"
        kind, typed = _as_label(values) if name == label_column else _classify(values, is_label=part == "label")
        if name == label_column and typed is None:
            raise UserError(f"Column {name!r} cannot be the label: {kind}. Set `data.label_column` to another column.")
        if name != label_column and (part in taken | RESERVED or (part == "label" and label_column is not None)):
            kind, typed = f"another condition is named {part!r}", None
        if typed is None:
            notes.append(Omission(f"column {name!r} is not used: {kind}"))
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
    """The items with labels, numbers and captions from the columns, and notes. A label column overrides the label from
    folder names.
    """
    table = describe(columns, len(items), label_column)
    notes = list(table.notes)
    if "label" in table.names and any(item.labels for item in items):
        notes.append(Omission("the label comes from the metadata; the folders' names are not used"))
    out = []
    for item, labels, numbers, caption in zip(items, table.labels, table.numbers, table.captions, strict=True):
        from_folders = {} if "label" in table.names else dict(item.labels)
        out.append(replace(item, labels=from_folders | labels, numbers=numbers, caption=caption))
    # A note for every condition that some items lack.
    counts = Counter(k for item in out for k in (*item.labels, *item.numbers, *item.images))
    counts["caption"] = sum(item.caption is not None for item in out)
    return out, notes + [
        Omission(f"{name} missing: {len(out) - n:,} of {len(out):,} items, trained without this condition")
        for name, n in sorted(counts.items())
        if 0 < n < len(out)
    ]


Typed = tuple[str, list[Any] | None]  # ("label" or "number", values), or (reason why it is neither, None)


def _clean(value: Any) -> Any:
    """None for a missing value: None, an empty string or a float that is not finite. Otherwise the stripped value."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _classify(values: Sequence[Any], is_label: bool) -> Typed:
    """A column as labels if it has few distinct values, otherwise as numbers if all values are numbers.

    `is_label`: the column is named "label", so integers are labels however many there are.
    """
    present = [v for v in values if v is not None]
    numbers = [_number(v) for v in values]  # a CSV stores numbers as text
    if present and sum(v is not None for v in numbers) == len(present):
        distinct = {v for v in numbers if v is not None}
        few = is_label or len(distinct) <= max(2, min(MAX_INTEGERS, len(present) // 2))
        if not (few and all(isinstance(v, int) for v in distinct)) and len(distinct) > 1:
            return "number", [None if v is None else float(v) for v in numbers]
    return _as_label(values, MAX_CLASSES if is_label else len(present) // 2)


def _as_label(values: Sequence[Any], most: int = MAX_CLASSES) -> Typed:
    """A column as labels, if it has 2 to `most` distinct values (two are always allowed)."""
    present = [v for v in values if v is not None]
    if not present:
        return "it is empty", None
    if not all(isinstance(v, (str, bool, int, float)) for v in present):
        return "it holds values other than text, numbers and booleans", None
    names = [None if v is None else str(v) for v in values]
    if {n.lower() for n in names if n} <= {"true", "false"}:  # Python, JSON and spreadsheets capitalise differently
        names = [n and n.lower() for n in names]
    distinct = {n for n in names if n is not None}
    if len(distinct) < 2:
        return f"its only value is {next(iter(distinct))!r}", None
    if len(distinct) > max(2, min(most, MAX_CLASSES)):
        return f"it has {len(distinct):,} different values for {len(present):,} items, too many for a label", None
    return "label", names


def _number(value: Any) -> int | float | None:
    """The value as a number if it is one, or text that represents one. None for anything else and if not finite."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, str):
        whole = re.fullmatch(r"[-+]?\d{1,18}", value)
        return int(value) if whole else as_number(value.replace("_", "x"))
    return value if abs(value) < LARGEST else None
