"""Logs of what was shown: the item, with which probability it was drawn, and what that earned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.data.files import FileError, suffix_of, walk
from afresh.data.tables.batches import SUFFIXES, batches
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.numbers import as_number
from afresh.data.tables.roles import Names, columns_by_role
from afresh.domains.interactions.columns import ITEMS, USERS
from afresh.domains.interactions.event_tables import headerless_names

NAMES: dict[str, Names] = {  # of columns of each role
    "history": ("history", "items", "sequence", "before", "context"),
    "drawn": ("drawn", "propensity", "pscore", "propensityscore", "actionprob", "probability", "prob"),
    "reward": ("reward", "clicked", "click", "clicks", "bought", "purchased", "liked", "rating", "outcome", "value"),
    "place": ("place", "position", "rank", "slot"),
    "list": ("list", "listid", "impression", "impressionid", "request", "requestid", "slate", "slateid"),
    "user": USERS,
    "item": ITEMS,
}
YES, NO = ("true", "yes"), ("false", "no")


@dataclass(frozen=True, eq=False)
class ShownLog:
    """N rows in the order of their lists and places, and D lists.

    `items` (N,): ids. `decision` (N,) numbers the lists, `place` (N,) counts from 0 in each. `drawn`, `reward` (N,).
    `histories`: the ids that the user of each list had chosen, oldest first; None where the log names `users` instead.
    `columns`: which column was taken for what.
    """

    items: Sequence[str]
    decision: NDArray[np.int64]
    place: NDArray[np.int64]
    drawn: NDArray[np.float64]
    reward: NDArray[np.float64]
    histories: Sequence[Sequence[str]] | None
    users: Sequence[str]
    columns: Mapping[str, str]


def read_shown(path: Path) -> ShownLog:
    """The log at a path: .csv, .tsv, .parquet, .jsonl or a data base.

    A row is a place of a list: lists are told apart by a column of lists, or begin at place 1; without either, each row
    is a list of its own. Raises UserError if the log cannot be read, if a column is missing, and for a row without a
    probability or a reward: to leave it out would bias what is estimated.
    """
    rows: list[dict[str, Any]] = []
    for file in (f for f in walk(path)[0] if suffix_of(f.name) in SUFFIXES):
        unusable = Unusable()
        try:
            for batch in batches(file, unusable, None, headerless_names):
                rows += batch.to_pylist()
        except FileError as error:
            raise UserError(f"{file.name} cannot be read: {error}.") from None
        for reason, (count, row) in unusable.reasons.items():
            raise UserError(f"{file.name}: {count:,} rows cannot be read, the first in line {row:,} ({reason}).")
    if not rows:
        raise UserError(f"No log of what was shown in {path}.")
    columns = columns_of_shown(list(dict.fromkeys(name for row in rows for name in row)))
    rows, decision = in_lists(rows, columns)
    starts = np.flatnonzero(np.diff(decision, prepend=-1))
    first = [rows[i] for i in starts]
    return ShownLog(
        [str(row[columns["item"]]) for row in rows],
        decision,
        np.arange(len(rows)) - starts[decision],
        np.array([number(row[columns["drawn"]], columns["drawn"], i) for i, row in enumerate(rows)]),
        np.array([number(row[columns["reward"]], columns["reward"], i) for i, row in enumerate(rows)]),
        [ids(row[columns["history"]]) for row in first] if "history" in columns else None,
        [str(row[columns["user"]]) for row in first] if "user" in columns else [],
        columns,
    )


def columns_of_shown(names: Sequence[str]) -> dict[str, str]:
    """The column of each role, by name. Raises UserError, listing the columns, if one that is needed is missing."""
    columns = columns_by_role(names, NAMES)
    missing = [role for role in ("item", "drawn", "reward") if role not in columns]
    if "history" not in columns and "user" not in columns:
        missing.append("history (or user)")
    if missing:
        raise UserError(
            f"A log of what was shown lacks columns: {', '.join(missing)}. It has {', '.join(names)}. Name them item, "
            "drawn (the probability with which the item was put in its place), reward (1 for a click, 0 for none), and "
            "history (the ids chosen before, oldest first) or user; for lists also list and place."
        )
    return columns


def in_lists(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
    """The rows in the order of their lists and places, and the number of the list of each. Raises UserError if the
    places of a list are not 1, 2, ...: what was shown above a place must be known."""
    if "place" not in columns:
        if "list" in columns and len({row[columns["list"]] for row in rows}) < len(rows):
            raise UserError("The log has lists of several items. Add a column `place`, 1 for the first item of a list.")
        return rows, np.arange(len(rows))
    places = [int(number(row[columns["place"]], columns["place"], i)) for i, row in enumerate(rows)]
    if "list" in columns:
        names = [row[columns["list"]] for row in rows]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
        lists = [numbers[name] for name in names]
    else:
        lists = (np.cumsum(np.array(places) == min(places)) - 1).tolist()
    order = sorted(range(len(rows)), key=lambda i: (lists[i], places[i]))
    decision = np.array([lists[i] for i in order], dtype=np.int64)
    place = np.array([places[i] for i in order]) - min(places)
    starts = np.flatnonzero(np.diff(decision, prepend=-1))
    if decision[0] != 0 or (place != np.arange(len(rows)) - starts[decision]).any():
        raise UserError(
            "The places of each list must be 1, 2, ... without a gap, since what is shown at a place depends on what "
            "was shown above. Keep all places of a list, and name the lists in a column `list`."
        )
    return [rows[i] for i in order], decision


def number(value: Any, column: str, row: int) -> float:
    """Raises UserError for an invalid number, yes or no."""
    text = "" if value is None else str(value).strip().lower()
    if text in YES + NO:
        return float(text in YES)
    amount = as_number(text)
    if amount is None:
        raise UserError(
            f"Row {row + 1:,} of the log has {text or 'nothing'!r} for {column}, which is not a number. Write 0 where "
            "nothing was clicked."
        )
    return amount


def ids(value: Any) -> list[str]:
    """A history as a list of ids, from a list, a text of ids with commas, or a list in JSON."""
    if isinstance(value, str) and value.strip().startswith("["):
        with suppress(ValueError):
            value = json.loads(value)
    if value is None:
        return []
    return [str(v).strip() for v in (value.split(",") if isinstance(value, str) else value) if str(v).strip()]
