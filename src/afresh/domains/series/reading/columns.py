"""Which columns of a table are the times, the numbers to learn, and what tells several series apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afresh.core import UserError
from afresh.data.tables.numbers import Floats, as_number, is_missing
from afresh.data.tables.roles import are_labels, check_given, is_prose, plain_name, share, shown, time_column
from afresh.data.tables.times import seconds
from afresh.domains.series.reading.options import ReadingOptions

OWN_NAME = re.compile(r"[a-z][_ ]?(id|ID|Id)$")  # customer_id, and not a count of rows
KEYS = re.compile(r".*(id|uuid|key|code|nr|no|number|nummer|index)|unnamed\d*|row|index|")  # plain names of identifiers
NUMBERS = 0.9  # share of the values of a column of numbers that are some
REGULAR = 0.5  # share of differences of times that are the most frequent one, in a series
SORTED = 0.9  # share of times that are not before the one above them
LEAST = 8  # rows in which a series is recognised
SPANS = ((28, 31), (90, 92), (365, 366))  # days of a month, a quarter and a year


@dataclass(frozen=True)
class SeriesColumns:
    """Names of columns. `ids`: columns of numbers that are left out because they look like identifiers; `texts`: those
    of texts that are left out."""

    time: str
    values: tuple[str, ...]
    series: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def words(self) -> str:
        out = f"times in {shown(self.time)}, values in {', '.join(self.values)}"
        out += f", series told apart by {', '.join(self.series)}" if self.series else ""
        return out + (f", known in advance: {', '.join(self.known)}" if self.known else "")


def series_columns(table: Mapping[str, Sequence[Any]], options: ReadingOptions) -> SeriesColumns | str:
    """The columns of a table {name: values}, or why it is not a series. Raises UserError if a column that was named is
    missing, or holds no numbers."""
    names = list(table)
    by_hand = {"time": options.time} if options.time else {}
    for role in ("values", "series", "known"):
        for column in getattr(options, role) or ():
            check_given(names, {role: column})
    check_given(names, by_hand)
    when = options.time or time_column(names, table.__getitem__)
    if when is None:
        return "no column of times was found"
    taken = {when, *(options.series or ()), *(options.known or ())}
    rest = [n for n in names if n not in taken]
    numeric = [n for n in rest if is_numeric(table[n])]
    texts = [n for n in rest if n not in numeric and any(not is_missing(v) for v in table[n])]
    ids = [n for n in numeric if looks_like_id(n, table[n])] if options.values is None else []
    apart = options.series
    if apart is None:
        labels = [n for n in texts if are_labels([str(v) for v in table[n] if not is_missing(v)])]
        whole = [n for n in numeric if n not in ids and recurs(table[n], len({str(v) for v in table[when]}))]
        apart = told_apart(table, when, [*labels, *ids, *whole])
    texts = [n for n in texts if n not in apart and n not in (options.values or ())]
    ids = [n for n in ids if n not in apart]
    for role in ("values", "known"):
        for column in getattr(options, role) or ():
            if not is_numeric(table[column]) and any(not is_missing(v) for v in table[column]):
                raise UserError(
                    f"The column {column!r} of `data.{role}` holds texts, and a series is of numbers. Those of numbers "
                    f"are: {', '.join(numeric) or 'none'}."
                )
    values = options.values or tuple(n for n in numeric if n not in ids and n not in apart)
    if not values:
        why = f"; {', '.join(ids)} look like identifiers, and `data.values` takes them all the same" if ids else ""
        if apart and options.series is None:
            why += f"; times recur, so that {', '.join(apart)} tells series apart: `data.values` names what to forecast"
        return f"no column of numbers beside the times in {shown(when)}{why}"
    return SeriesColumns(when, tuple(values), tuple(apart), tuple(options.known or ()), tuple(ids), tuple(texts))


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether nearly all values that are there are numbers."""
    there = [v for v in values if not is_missing(v)]
    return bool(there) and share(there, lambda v: as_number(v) is not None) >= NUMBERS


def looks_like_id(name: str, values: Sequence[Any]) -> bool:
    """Whether whole numbers identify something: they are named so, or only count the rows."""
    numbers = np.array([n for v in values if (n := as_number(v)) is not None])
    if not len(numbers) or (numbers != np.round(numbers)).any():
        return False
    counts = len(numbers) >= LEAST and bool((np.diff(numbers) == 1).all())
    return counts or KEYS.fullmatch(plain_name(name)) is not None


def recurs(values: Sequence[Any], times: int) -> bool:
    """Whether a column has whole numbers of which each occurs at half of the times or more, as numbers of shops do."""
    numbers = np.array([n for v in values if (n := as_number(v)) is not None])
    if not len(numbers) or (numbers != np.round(numbers)).any():
        return False
    return bool(np.unique(numbers, return_counts=True)[1].min() >= times / 2)


def told_apart(table: Mapping[str, Sequence[Any]], when: str, candidates: Sequence[str]) -> tuple[str, ...]:
    """The column of `candidates` by which times that occur several times differ; none where times differ or no column
    does it."""
    times = [str(v) for v in table[when]]
    if len(set(times)) > 0.98 * len(times):
        return ()
    for name in candidates:
        if len(set(zip(times, map(str, table[name]), strict=True))) > 0.98 * len(times):
            return (name,)
    return ()


def is_series(table: Mapping[str, Sequence[Any]], columns: SeriesColumns) -> bool:
    """Whether rows are a series: their times are mostly sorted and of equal steps, within each series, and no column
    holds prose or anything but labels. Rows that are things with names of their own, such as customers by the day on
    which they came, are none."""
    if any(OWN_NAME.search(n) and len(set(map(str, table[n]))) == len(table[n]) for n in columns.ids):
        return False
    words = {n: [str(v) for v in table[n] if not is_missing(v)] for n in columns.texts}
    if any(is_prose(n, values) or not are_labels(values) for n, values in words.items()):
        return False
    times, _ = seconds(table[columns.time])
    groups: dict[Any, list[float]] = {}
    apart = [table[n] for n in columns.series]
    for i, moment in enumerate(times):
        if np.isfinite(moment):
            groups.setdefault(tuple(str(c[i]) for c in apart), []).append(moment)
    differences = np.concatenate([np.diff(g) for g in groups.values()] or [np.zeros(0)])
    return len(differences) >= LEAST and rises(differences)


def rises(differences: Floats) -> bool:
    """Whether differences of times are of a series: nearly none is negative, and the most frequent one is usual. Those
    of months and quarters are one."""
    if np.mean(differences >= 0) < SORTED:
        return False
    positive = differences[differences > 0]
    if len(positive) < 0.5 * len(differences):
        return False
    _, counts = np.unique(np.round(positive, 3), return_counts=True)
    monthly = max(np.mean((positive >= low * 86_400) & (positive <= high * 86_400)) for low, high in SPANS)
    return bool(max(counts.max() / len(positive), monthly) >= REGULAR)
