"""Tables of events to one log: who did what when, as numbered users, items and times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import Omission, Refused, UserError
from afresh.core.plural import counted
from afresh.data.files import DataFile
from afresh.data.tables.batches import SUFFIXES, read_tables
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.numbers import id_of, numbers_of, values_of
from afresh.data.tables.roles import check_given, role_words
from afresh.data.tables.times import times_of
from afresh.domains.interactions.catalogue import are_pictures
from afresh.domains.interactions.columns import LOOKED_AT, columns_by_name
from afresh.domains.interactions.event_tables import events_of, headerless_names

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
MOST_FEATURES = 32  # columns that are kept as features


@dataclass(frozen=True, eq=False)
class Log:
    """N events, sorted by user, then by time, then by their order in the files.

    `user` and `item` (N,) number the names in `users` and `items`; `time` (N,) is in seconds, NaN where unknown;
    `rating` (N,) NaN likewise; `event` (N,) numbers `events`. `features` are the values of an item's columns in the
    order of `items`, None where unknown; `traits` are those of users, in the order of `users`.
    """

    users: Sequence[str]
    items: Sequence[str]
    user: Ints
    item: Ints
    time: Floats
    rating: Floats
    event: Ints
    events: Sequence[str] = ()
    features: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    traits: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def timed(self) -> bool:
        return len(self.time) > 0 and bool(np.isfinite(self.time).any())


@dataclass
class _Reading:
    """What was read so far."""

    named: Mapping[str, str | None]
    by_session: bool
    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    parts: list[tuple[Ints, Ints, Floats, Floats, Ints]] = field(default_factory=list)
    units: Counter[str] = field(default_factory=Counter)
    features: dict[str, dict[int, Any]] = field(default_factory=dict)
    traits: dict[str, dict[int, Any]] = field(default_factory=dict)
    varies: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    words: str = ""
    seen: dict[str, None] = field(default_factory=dict)  # names of columns, of all tables
    rows: int = 0
    retyped: int = 0
    clockless: int = 0  # events
    columns: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)  # their roles, by the names of all


def read_log(
    path: Path, named: Mapping[str, str | None], query: str | None = None, by_session: bool = False
) -> tuple[Log, list[Refused], list[str]]:
    """The log at a path: files of events, and beside them files of items or users with their features.

    `named`: columns by role that a user chose. Also returns what was refused and notes on what was found. Raises
    UserError if there is no event.
    """
    reading = _Reading(named, by_session)

    def add(file: DataFile, batches: Iterator[Any], unusable: Unusable) -> None:
        for batch in events_of(file, batches):
            _add(reading, batch, unusable)

    refused, reading.notes, _ = read_tables(path, add, query, headerless_names, SUFFIXES)
    if reading.seen:
        check_given(tuple(reading.seen), {role: column for role, column in named.items() if column is not None})
    if not reading.parts:
        raise UserError(
            f"No log of who did what in {path}: it needs a column of users and one of items, in "
            f"{', '.join(sorted(SUFFIXES))}. Name them by `data.user` and `data.item`.",
            lines=[f"{r.source}: {r.reason}" for r in refused[:5]],
        )
    log = _sorted(reading)
    pictures = {str(v) for values in log.features.values() if are_pictures(values) for v in values}
    return log, [r for r in refused if r.source not in pictures], _notes(reading)


def _add(reading: _Reading, batch: Any, unusable: Unusable) -> None:
    reading.seen |= dict.fromkeys(batch.schema.names)
    names = tuple(batch.schema.names)
    if names not in reading.columns:
        named = {k: v for k, v in reading.named.items() if v is None or v in names}
        reading.columns[names] = columns_by_name(
            names, named, lambda name: batch.column(name).slice(0, LOOKED_AT).to_pylist()
        )
    of = dict(reading.columns[names])
    others = [name for name in names if name not in of.values()]  # which may be features
    if reading.by_session and "session" in of:
        of["user"] = of.pop("session")
    if "user" not in of and "item" not in of:
        unusable.add(f"neither users nor items in the columns {', '.join(batch.schema.names[:8])}", 1, batch.num_rows)
        return
    if "user" not in of or "item" not in of:
        _describe(reading, of, others, batch)
        return
    reading.words = reading.words or role_words(of, ", ")
    user, item = (_ids(reading, batch.column(of[role])) for role in ("user", "item"))
    rows = np.arange(batch.num_rows)
    bad = user.missing | item.missing
    _count_bad(unusable, "no user or no item", rows[bad], reading.rows)
    time, units, clockless = times_of(batch, of)
    reading.units += units
    reading.clockless += int((~bad & clockless).sum())
    if "time" in of:
        _count_bad(unusable, "unreadable time", rows[~bad & np.isnan(time)], reading.rows)
        bad |= np.isnan(time)
    rating = numbers_of(batch.column(of["rating"])) if "rating" in of else np.full(batch.num_rows, np.nan)
    event = np.zeros(batch.num_rows, dtype=np.int32)
    if "event" in of:
        event = _ids(reading, batch.column(of["event"])).numbered(reading.events)
    keep = ~bad
    users, items = user.numbered(reading.users, keep), item.numbered(reading.items, keep)
    reading.parts.append((users, items, time[keep], rating[keep], event[keep]))
    for column in others[:MOST_FEATURES]:
        _feature(reading, column, items, [v for v, k in zip(values_of(batch.column(column)), keep, strict=True) if k])
    reading.rows += batch.num_rows


def _count_bad(unusable: Unusable, reason: str, rows: NDArray[Any], before: int) -> None:
    if len(rows):
        unusable.add(reason, int(rows[0]) + before + 1, len(rows))


@dataclass(frozen=True, eq=False)
class _Ids:
    """The ids of N rows: each one that occurs once, as `names`, and which it is in each row, `codes` (N,)."""

    names: Sequence[str]
    codes: NDArray[np.int64]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(N,) whether a row has none."""
        return np.array([not n for n in self.names], dtype=bool)[self.codes]

    def numbered(self, known: dict[str, int], keep: NDArray[np.bool_] | None = None) -> Ints:
        """The numbers of the ids of the rows that are kept; those that are not `known` are added as they occur."""
        codes = self.codes if keep is None else self.codes[keep]
        first = np.full(len(self.names), len(codes))
        first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
        numbers = np.zeros(len(self.names), dtype=np.int32)
        for code in np.argsort(first, kind="stable")[: int((first < len(codes)).sum())].tolist():
            numbers[code] = known.setdefault(self.names[code], len(known))
        return numbers[codes]


def _ids(reading: _Reading, column: Any) -> _Ids:
    """Ids as texts; "" where there is none. A whole number that was stored with a point is the id without it."""
    import pyarrow

    floating = pyarrow.types.is_floating(column.type)
    if not floating and not pyarrow.types.is_string(column.type):
        column = column.cast(pyarrow.string())
    encoded = column.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    values = encoded.dictionary.to_pylist()
    names = [*map(id_of, values), ""]
    changed = [bool(n) if floating else n != v.strip() for n, v in zip(names[:-1], values, strict=True)]
    reading.retyped += int(np.array([*changed, False], dtype=bool)[codes].sum())
    return _Ids(names, codes)


def _describe(reading: _Reading, of: Mapping[str, str], others: Sequence[str], batch: Any) -> None:
    """A table of items or of users with their features."""
    items = "user" not in of
    rows = _ids(reading, batch.column(of["item" if items else "user"])).numbered(
        reading.items if items else reading.users
    )
    into = reading.features if items else reading.traits
    named = [column for role, column in of.items() if role not in ("user", "item")]
    for column in [*named, *others][:MOST_FEATURES]:
        values = into.setdefault(column, {})
        for row, value in zip(rows.tolist(), batch.column(column).to_pylist(), strict=True):
            if value is not None:
                values.setdefault(row, value)


def _feature(reading: _Reading, column: str, items: Ints, values: Sequence[Any]) -> None:
    """The first value of each item in a column of the events; later ones may not have been known before."""
    into = reading.features.setdefault(column, {})
    for row, value in zip(items.tolist(), values, strict=True):
        if value is None or value == "":
            continue
        first = into.setdefault(row, value)
        reading.varies[column] += first != value


def _sorted(reading: _Reading) -> Log:
    user, item, time, rating, event = (np.concatenate(part) for part in zip(*reading.parts, strict=True))
    order = np.lexsort((np.arange(len(user)), np.nan_to_num(time), user))
    user, item, time, rating, event = user[order], item[order], time[order], rating[order], event[order]
    same = np.zeros(len(user), dtype=bool)
    if np.isfinite(time).any():
        same[1:] = (user[1:] == user[:-1]) & (item[1:] == item[:-1]) & (time[1:] == time[:-1])
        same[1:] &= event[1:] == event[:-1]
    if same.any():
        reading.notes.append(
            Omission(f"{counted(int(same.sum()), 'event')} left out, equal to another in user, item and time")
        )
    keep = ~same
    features = {k: v for k, v in reading.features.items() if _describes(reading, k)}
    return Log(
        tuple(reading.users),
        tuple(reading.items),
        user[keep],
        item[keep],
        time[keep],
        rating[keep],
        event[keep],
        tuple(reading.events),
        {k: [v.get(i) for i in range(len(reading.items))] for k, v in features.items()},
        {k: [v.get(i) for i in range(len(reading.users))] for k, v in reading.traits.items()},
    )


def _describes(reading: _Reading, column: str) -> bool:
    """Whether a column says something of items: it hardly varies between the events of one item."""
    return reading.varies[column] <= 0.02 * max(1, reading.rows)


def _notes(reading: _Reading) -> list[str]:
    notes = [reading.words, *reading.notes]
    units = {name: n for name, n in reading.units.items() if n}
    if len(units) > 1:
        mixed = ", ".join(f"{n:,} in {name}" if name[0] != "d" else f"{n:,} {name}" for name, n in units.items())
        notes.append(f"times are of several forms: {mixed}")
    if reading.clockless:
        notes.append(Omission(f"{counted(reading.clockless, 'event')} without a time of day, taken as at 0:00"))
    if reading.retyped:
        notes.append(f"{counted(reading.retyped, 'id')} stored as numbers with a point, read without it")
    for column in reading.features:
        if not _describes(reading, column):
            notes.append(Omission(f"column {column!r} is not used: it varies between the events of one item"))
        elif n := reading.varies[column]:
            notes.append(f"{column!r} changes later in {counted(n, 'event')}: the first value of each item is used")
    return [n for n in notes if n]
